"""One HTTP request to the server and its answer, or a sentence that says what went wrong. Standard library only."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

from MedCLIPLib.multipart import Body

__all__ = ["Answer", "ServerError", "Transport"]

_REMEDIES = {
    401: "The server wants you to sign in: enter user and password, or a token, and connect again.",
    403: "Your account may not do this on the server: ask for MONAI Label's user role.",
    404: "The server does not know this.",
    405: "The server does not offer this.",
    413: "The volume is larger than the server accepts: crop or resample it.",
    429: "The server has too many requests: try again in a moment.",
    503: "The server is busy or took too long: try again in a moment.",
}
_DETAIL_CHARACTERS = 400  # of a server's own words; a trace is none of the reader's business


class ServerError(Exception):
    """What the reader is told when an answer fails.

    Attributes:
        status: the HTTP status; 0 where there was no answer.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Answer(NamedTuple):
    """An answer with status 200."""

    content_type: str
    content: bytes

    def json(self) -> dict[str, Any]:
        """The parsed body.

        Raises:
            ServerError: it is no JSON object; another server listens there.
        """
        try:
            parsed = json.loads(self.content)
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            raise ServerError("This is not a MONAI Label server: its answer is no JSON object. Check the address.")
        return parsed


class Transport:
    """Requests to one address. No proxy and no redirect: voxels go to that server and nowhere else."""

    def __init__(self, address: str, *, token: str = "", timeout_s: float = 600.0) -> None:
        """Set the address.

        Args:
            address: such as ``http://127.0.0.1:8000``; without a scheme it is http.
            token: for servers with authentication.
            timeout_s: how long to wait for an answer.

        Raises:
            ValueError: the address cannot be one.
        """
        self._server = _split(address)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout_s = timeout_s

    @property
    def address(self) -> str:
        """The server's address, without a slash at the end."""
        return self._server.geturl()

    def send(self, method: str, path: str, body: Body | None = None, *, timeout_s: float | None = None) -> Answer:
        """Ask once.

        Args:
            method: GET, PUT, POST, HEAD.
            path: with its query, beginning with a slash.
            body: a form.
            timeout_s: for this request.

        Raises:
            ServerError: no answer, or one with another status than 200, in words.
        """
        headers = dict(self._headers)
        if body:
            headers["Content-Type"] = body.content_type
        connection = self._connection(timeout_s or self._timeout_s)
        try:
            connection.request(method, self._server.path + path, body.content if body else None, headers)
            response = connection.getresponse()
            answer = Answer(response.getheader("content-type", ""), response.read())
        except (OSError, http.client.HTTPException) as error:
            raise ServerError(f"{_unreachable(error)} ({self.address})") from error
        finally:
            connection.close()
        if response.status != 200:
            raise ServerError(_told(response.status, answer), response.status)
        return answer

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        """A connection that is not open yet; certificates are verified, unlike in the stock client."""
        host, port = str(self._server.hostname), self._server.port
        if self._server.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=timeout_s)


def _split(address: str) -> SplitResult:
    """The parts of an address."""
    text = address.strip()
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number
        usable = False
    if not usable or parts.query or parts.fragment or parts.username:
        raise ValueError(f"The server address {address!r} is none: write it like http://127.0.0.1:8000.")
    return parts._replace(path=parts.path.rstrip("/"))


def _unreachable(error: Exception) -> str:
    """Why there was no answer."""
    if isinstance(error, ssl.SSLError):
        return f"The server's certificate is not trusted, or it does not speak https: {error.__class__.__name__}."
    if isinstance(error, TimeoutError):
        return "The server did not answer in time: try again, or ask for a smaller volume."
    if isinstance(error, ConnectionRefusedError):
        return "The server is not there: start it, or check the address and port."
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        return "The server cannot be reached: check the address and the network."
    return "The server broke the connection off: see its log."


def _told(status: int, answer: Answer) -> str:
    """What the status means, and the server's own words if it has some."""
    detail = _detail(answer)
    if status in _REMEDIES:
        return f"{_REMEDIES[status]} {detail}".strip()
    if 300 <= status < 400:
        return f"The server sends us elsewhere (status {status}): enter the address it really has."
    if 400 <= status < 500:
        return detail or f"The server refused the request (status {status})."
    return f"The server failed (status {status}). {detail or 'See its log.'}"


def _detail(answer: Answer) -> str:
    """The ``detail`` of FastAPI's errors, if it is text."""
    try:
        detail = json.loads(answer.content)["detail"]
    except (ValueError, KeyError, TypeError):
        return ""
    if isinstance(detail, list):  # FastAPI's own validation
        detail = "; ".join(str(part.get("msg", "")) for part in detail if isinstance(part, dict))
    return str(detail)[:_DETAIL_CHARACTERS]
