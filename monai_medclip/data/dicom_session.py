"""The network side of a DICOMweb archive: time limits, retries, credentials from the environment, checked TLS."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.errors import InvalidDicomError
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from retrying import RetryError

from monai_medclip.data.dicom_errors import ArchiveError

__all__ = ["PASSWORD", "TOKEN", "USERNAME", "dicomweb_client", "translated"]

logger = logging.getLogger(__name__)

USERNAME, PASSWORD, TOKEN = "MEDCLIP_DICOMWEB_USERNAME", "MEDCLIP_DICOMWEB_PASSWORD", "MEDCLIP_DICOMWEB_TOKEN"

_CONNECT_S, _READ_S = 10.0, 300.0  # an archive may take minutes to file a large map
_RETRIES, _BACKOFF_MS = 3, 500  # 1, 2, 4 s
_PASSING = (
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
_WHOLE = 2**31  # bytes: the client's smaller chunks come from a generator, which a second attempt would find empty
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_NO_DICOM = (ValueError, TypeError, LookupError, AttributeError, EOFError, InvalidDicomError)
_AGAIN = "Check address and network, then run again with --resume."

Answer = TypeVar("Answer")


class _TimedAdapter(HTTPAdapter):
    """Every request has a time limit, which the client of pydicom 2.4 cannot set."""

    def send(self, request: Any, **options: Any) -> Any:
        return super().send(request, **{**options, "timeout": (_CONNECT_S, _READ_S)})


class _Bearer(AuthBase):
    """A token in the header; as `AuthBase`, so that no entry of a .netrc file replaces it."""

    def __init__(self, token: str) -> None:
        self.token = token

    def __call__(self, request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


def dicomweb_client(url: str, environment: Mapping[str, str]) -> Any:
    """A client for an archive; nothing is asked yet.

    Args:
        url: base of the DICOMweb services, such as ``https://archive/dicom-web``.
        environment: may hold ``MEDCLIP_DICOMWEB_USERNAME`` and ``MEDCLIP_DICOMWEB_PASSWORD``, or
            ``MEDCLIP_DICOMWEB_TOKEN``.

    Raises:
        ValueError: no http or https address, credentials in it, or half of them in the environment.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("the archive's address must begin with http:// or https:// and name a host.")
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"the archive's address holds a user: take it out, and set {USERNAME} and {PASSWORD}.")
    session = requests.Session()
    session.mount("https://", _TimedAdapter())
    session.mount("http://", _TimedAdapter())
    session.hooks["response"].append(_plain_type)
    session.auth = _credentials(environment)
    if session.auth and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        logger.warning("Credentials travel in the clear: the archive's address begins with http, not https.")
    client = DICOMwebClient(url.rstrip("/"), session=session, chunk_size=_WHOLE)
    client.set_http_retry_params(
        max_attempts=1 + _RETRIES, wait_exponential_multiplier=_BACKOFF_MS, retriable_error_codes=_PASSING
    )
    return client


def translated(what: str, call: Callable[[], Answer]) -> Answer:
    """What a call to the archive returns.

    Args:
        what: it is about, for the message: a verb and a kind of object, no names and no address.
        call: the request.

    Raises:
        ArchiveError: no answer, a refusal, or an answer that is no DICOM; without address and query, which may name
            a patient.
    """
    try:
        return call()
    except RetryError as error:  # a passing trouble that stayed
        status = getattr(error.last_attempt.value, "status_code", "unknown")
        reason = f"the archive could not {what}: HTTP status {status} after {1 + _RETRIES} attempts"
        raise ArchiveError(reason, _AGAIN) from error
    except requests.HTTPError as error:
        status = error.response.status_code
        raise ArchiveError(
            f"the archive refused to {what}: HTTP status {status}", _remedy(status), status=status
        ) from error
    except requests.exceptions.SSLError as error:
        remedy = "Name the file of the authority that signed it in REQUESTS_CA_BUNDLE."
        raise ArchiveError("the archive's certificate cannot be verified", remedy) from error
    except _NO_DICOM as error:
        reason = f"the archive's answer is no DICOM ({type(error).__name__})"
        raise ArchiveError(reason, "Check that the address is the base of DICOMweb.", status=HTTPStatus.OK) from error
    except OSError as error:  # all that requests raises is one
        raise ArchiveError(f"the archive does not answer ({type(error).__name__})", _AGAIN) from error


def _credentials(environment: Mapping[str, str]) -> Any:
    user, password, token = (environment.get(name, "") for name in (USERNAME, PASSWORD, TOKEN))
    if bool(user) != bool(password) or (user and token):
        raise ValueError(f"set {USERNAME} and {PASSWORD} both, or {TOKEN} alone, or none of the three.")
    return _Bearer(token) if token else (user, password) if user else None


def _plain_type(response: Any, *_: object, **__: object) -> None:
    """The media type without parameters where it is JSON: the client knows no ``; charset=utf-8``."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in ("application/dicom+json", "application/json"):
        response.headers["Content-Type"] = kind


def _remedy(status: int) -> str:
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return f"Set {USERNAME} and {PASSWORD}, or {TOKEN}, of an account that may do this."
    if status == HTTPStatus.NOT_FOUND:
        return "Check that the address is the base of DICOMweb, such as https://archive/dicom-web."
    return "Ask the archive's administrator; its log says why."
