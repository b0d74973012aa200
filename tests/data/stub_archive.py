"""An archive that says what a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from pydicom.dataset import Dataset


class Answer(NamedTuple):
    status: int = 200
    body: Any = ()  # becomes JSON; bytes stay as they are
    kind: str = "application/dicom+json"


class Asked(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Stub(NamedTuple):
    url: str
    asked: list[Asked]


@contextmanager
def stub_archive(answers: Sequence[Answer]) -> Iterator[Stub]:
    """One answer per request, in this order; the last one again and again."""
    asked: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = answers[min(len(asked), len(answers) - 1)]
            asked.append(Asked(self.command, self.path, dict(self.headers), body))
            content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Stub(f"http://127.0.0.1:{server.server_port}/dicom-web", asked)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def identifiers(**values: str) -> dict[str, Any]:
    """One result of a search, in DICOM JSON."""
    found = Dataset()
    for keyword, value in values.items():
        setattr(found, keyword, value)
    return found.to_json_dict()


def refusal(sop_uid: str, code: int) -> dict[str, Any]:
    """What an archive says of an object that it does not take."""
    item = {"00081155": {"vr": "UI", "Value": [sop_uid]}, "00081197": {"vr": "US", "Value": [code]}}
    return {"00081198": {"vr": "SQ", "Value": [item]}}


def taken(sop_uid: str) -> dict[str, Any]:
    """What it says of one that it has taken."""
    return {"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [sop_uid]}}]}}
