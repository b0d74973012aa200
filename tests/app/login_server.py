"""A server that wants a login, run by test_login.py in a process of its own: MONAI Label decides that when imported."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

ROLES = {"reader": ["monailabel-user"], "guest": []}
PASSWORD = "correct horse"


class Realm(BaseHTTPRequestHandler):
    """As much of a Keycloak realm as MONAI Label asks of one."""

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def do_GET(self) -> None:
        public = self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        lines = public.decode().splitlines()[1:-1]
        self._say({"public_key": "\n".join(lines), "token_endpoint": f"http://{self.headers['Host']}/token"})

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        (name,), (password,) = form["username"], form["password"]
        if password != PASSWORD:
            self._say({"error": "invalid_grant"}, 401)
            return
        claims = {"preferred_username": name, "email": "", "name": name, "exp": time.time() + 60}
        token = jwt.encode({**claims, "realm_access": {"roles": ROLES[name]}}, self.key, "RS256")
        self._say({"access_token": token, "token_type": "bearer"})

    def _say(self, answer: dict[str, Any], status: int = 200) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def main(folder: Path) -> None:
    realm = ThreadingHTTPServer(("127.0.0.1", 0), Realm)
    threading.Thread(target=realm.serve_forever, daemon=True).start()
    os.environ["MONAI_LABEL_AUTH_ENABLE"] = "true"
    os.environ["MONAI_LABEL_AUTH_REALM_URI"] = f"http://127.0.0.1:{realm.server_port}"

    import monailabel.interfaces.utils.app as held
    from served import StandIn, radiograph, serving, untrained_run

    from monai_medclip.app import server
    from monai_medclip.engines import BundleModel

    film = radiograph(folder / "film.dcm")
    held.apps[""] = StandIn(BundleModel.open(untrained_run(folder / "run")), {"film": film})
    with serving(server.app) as address:
        print(f"serving {address}", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
