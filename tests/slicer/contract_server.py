"""A small server that keeps the MedCLIP app's contract over real HTTP, where the app itself cannot be installed."""

from __future__ import annotations

import gzip
import json
import re
import struct
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SCORES = [
    {"finding": "nodule", "logit": -1.0, "probability": 0.27},
    {"finding": "pleural effusion", "logit": 2.0, "probability": 0.88},
]


def nrrd(values: np.ndarray, affine: np.ndarray) -> bytes:
    """A gzip NRRD by the book: values (x, y, z), affine to RAS in mm."""
    lps = LPS @ affine
    vectors = " ".join("(" + ",".join(f"{number:.17g}" for number in lps[:3, axis]) + ")" for axis in range(3))
    origin = ",".join(f"{number:.17g}" for number in lps[:3, 3])
    kind = {"float32": "float", "uint8": "uint8"}[values.dtype.name]
    header = [
        *("NRRD0004", f"type: {kind}", "dimension: 3", "space: left-posterior-superior"),
        *(f"sizes: {values.shape[0]} {values.shape[1]} {values.shape[2]}", f"space directions: {vectors}"),
        *("kinds: domain domain domain", "endian: little", "encoding: gzip", f"space origin: ({origin})"),
    ]
    return "\n".join([*header, "", ""]).encode() + gzip.compress(values.tobytes(order="F"))


def nifti(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (x, y, z) and affine to RAS of a gzip NIfTI-1 with an sform."""
    raw = gzip.decompress(content)
    shape = struct.unpack_from("<8h", raw, 40)[1:4]
    kind = {4: "<i2", 16: "<f4", 512: "<u2"}[struct.unpack_from("<h", raw, 70)[0]]
    start = int(struct.unpack_from("<f", raw, 108)[0])
    affine = np.vstack([np.array(struct.unpack_from("<12f", raw, 280)).reshape(3, 4), [0, 0, 0, 1]])
    count = int(np.prod(shape))
    return np.frombuffer(raw, kind, count, start).reshape(shape, order="F"), affine


class ContractServer(ThreadingHTTPServer):
    """Answers as the app does. Its map is the image itself, scaled to a maximum of 8, so that a voxel is recognized."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.images: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # by id: voxels and affine
        self.sessions: dict[str, bytes] = {}
        self.filenames: list[str] = []  # of uploads
        self.requests: list[tuple[str, str, dict[str, Any]]] = []  # method, path with query, params
        self.token = ""  # authentication is on where it is set
        self.own_routes = True  # /medclip/info is served
        self.status = 0  # of /infer and /session, where it is set
        self.detail = ""
        self.maps = "float"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def paths(self, method: str) -> list[str]:
        """What was asked by a method, without queries."""
        return [urlsplit(path).path for verb, path, _ in self.requests if verb == method]


class _Handler(BaseHTTPRequestHandler):
    server: ContractServer

    def log_message(self, *_args: Any) -> None:
        """Tests print nothing."""

    def do_GET(self) -> None:
        self._note({})
        path = urlsplit(self.path).path
        server = self.server
        if path == "/auth/":
            return self._json({"enabled": True}) if server.token else self._json({"detail": "Not Found"}, 404)
        if not self._signed_in():
            return None
        if path == "/medclip/info" and server.own_routes:
            return self._json(
                {
                    **{"name": "demo", "version": "0123456789ab", "modality": "CT", "has_index": True},
                    **{"methods": ["recommended", "grad_cam"], "intended_use": "Research use only."},
                }
            )
        if path == "/info/":
            heatmap = {"type": "segmentation", "description": "Research use only.", "config": {"method": ["gscorecam"]}}
            return self._json({"name": "stock", "models": {"heatmap": heatmap}})
        known = path.startswith("/session/") and path.split("/")[2] in server.sessions
        return self._json({}) if known else self._json({"detail": "Not Found"}, 404)

    def do_HEAD(self) -> None:
        self._note({})
        image = parse_qs(urlsplit(self.path).query)["image"][0]
        self.send_response(200 if image in self.server.images else 404)
        self.end_headers()

    def do_PUT(self) -> None:
        content = self._body()
        self._note({})
        if self._refused():
            return
        session = f"session-{len(self.server.sessions)}"
        self.server.sessions[session] = content["files"]
        self._json({"session_id": session})

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/auth/token":
            form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
            self._note({})
            right = form == {"username": ["reader"], "password": ["p&ss word"], "grant_type": ["password"]}
            return self._json({"access_token": self.server.token} if right else {"detail": "no"}, 200 if right else 500)
        params = json.loads(self._body()["params"])
        self._note(params)
        if self._refused() or not self._signed_in():
            return None
        if url.path == "/infer/findings":
            return self._json({"scores": SCORES})
        if url.path == "/infer/similar_cases":
            rows = [
                {"id": "case 7", "rank": 1, "cosine": 0.9, "text": "A nodule."},
                {"id": "case 2", "rank": 2, "cosine": 0.5, "labels": {"nodule": 0, "edema": 1}},
            ]
            return self._json({"cases": rows})
        return self._heatmap({key: value[0] for key, value in parse_qs(url.query).items()}, params)

    def _heatmap(self, query: dict[str, str], params: dict[str, Any]) -> None:
        server = self.server
        session = query.get("session_id", "")
        voxels, affine = nifti(server.sessions[session]) if session else server.images[query["image"]]
        kind = np.float32 if server.maps == "float" else np.uint8
        values = (8.0 * (voxels - voxels.min()) / (voxels.max() - voxels.min())).astype(kind)
        facts = {
            **{"prompt": params["prompt"], "method": params.get("method", "recommended"), "score": 1.6},
            **{"probability": 0.83, "model": "demo", "model_version": "0123456789ab"},
            "faithfulness": {"score": 1.6, "hottest_masked": 1.7, "elsewhere_masked": 1.5, "supports": False},
        }
        body = b"--frontier\r\n"
        body += b'Content-Disposition: form-data; name="params"\r\nContent-Type: application/json\r\n\r\n'
        body += json.dumps(facts).encode() + b"\r\n--frontier\r\n"
        body += b'Content-Disposition: form-data; name="image"; filename="../../map.nrrd"\r\n'
        body += b"Content-Type: application/octet-stream\r\n\r\n" + nrrd(values, affine) + b"\r\n--frontier--\r\n"
        self._send(body, "multipart/form-data; boundary=frontier")

    def _body(self) -> dict[str, bytes]:
        """The fields of a form; the boundary is in no field of these tests."""
        boundary = self.headers["content-type"].split("boundary=")[1].encode()
        raw = self.rfile.read(int(self.headers["content-length"]))
        fields = {}
        for chunk in raw.split(b"--" + boundary)[1:-1]:
            head, _, content = chunk.partition(b"\r\n\r\n")
            fields[re.search(rb'name="([^"]+)"', head)[1].decode()] = content[:-2]
            self.server.filenames += re.findall(r'filename="([^"]+)"', head.decode())
        return fields

    def _note(self, params: dict[str, Any]) -> None:
        self.server.requests.append((self.command, self.path, params))

    def _refused(self) -> bool:
        if self.server.status:
            self._json({"detail": self.server.detail}, self.server.status)
        return bool(self.server.status)

    def _signed_in(self) -> bool:
        if self.server.token and self.headers.get("authorization") != f"Bearer {self.server.token}":
            self._json({"detail": "Not authenticated"}, 401)
            return False
        return True

    def _json(self, content: Any, status: int = 200) -> None:
        self._send(json.dumps(content).encode(), "application/json", status)

    def _send(self, body: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
