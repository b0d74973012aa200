"""A small server for OHIF's built pages: unknown paths get the one page, ``/dicom-web`` is handed on to the archive."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_ROOTS = dict.fromkeys(("wadoUriRoot", "qidoRoot", "wadoRoot"), "/dicom-web")
CONFIG = {
    "routerBasename": "/",
    "extensions": [],
    "modes": [],
    "customizationService": {},
    "showStudyList": True,
    "maxNumberOfWebWorkers": 1,
    "showWarningMessageForCrossOrigin": False,
    "showCPUFallbackMessage": False,
    "showLoadingIndicator": True,
    "strictZSpacingForVolumeViewport": True,
    "investigationalUseDialog": {"option": "never"},
    "defaultDataSourceName": "archive",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "archive",
            "configuration": {
                "friendlyName": "Orthanc",
                "name": "Orthanc",
                **_ROOTS,
                "qidoSupportsIncludeField": True,
                "imageRendering": "wadors",
                "thumbnailRendering": "wadors",
                "enableStudyLazyLoad": True,
                "supportsFuzzyMatching": False,
                "supportsWildcard": True,
                "bulkDataURI": {"enabled": True, "relativeResolution": "studies"},
                "omitQuotationForMultipartRequest": True,
            },
        }
    ],
}


class Handler(SimpleHTTPRequestHandler):
    """Pages from a folder, the archive behind the same address."""

    protocol_version = "HTTP/1.1"
    archive = ""

    def do_GET(self) -> None:
        """One page, one file, or what the archive answers."""
        path = self.path.partition("?")[0]
        if path.startswith("/dicom-web"):
            self._hand_on()
        elif path == "/app-config.js":
            self._send(200, "text/javascript", f"window.config = {json.dumps(CONFIG)};".encode())
        else:
            if not Path(self.translate_path(path)).is_file():
                self.path = "/index.html"
            super().do_GET()

    def _hand_on(self) -> None:
        request = urllib.request.Request(self.archive + self.path.removeprefix("/dicom-web"))
        request.add_header("Accept", self.headers.get("Accept", "*/*"))
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                self._send(answer.status, answer.headers["Content-Type"], answer.read())
        except urllib.error.HTTPError as error:
            self._send(error.code, error.headers.get("Content-Type", "text/plain"), error.read())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main(dist: str, archive: str, port: str) -> None:
    """Serve until the process is ended."""
    Handler.archive = archive
    ThreadingHTTPServer(("127.0.0.1", int(port)), partial(Handler, directory=dist)).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
