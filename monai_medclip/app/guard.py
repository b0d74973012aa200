"""What every route of ours keeps to: bodies of bounded size, work in threads for a bounded time, errors in words."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from monai_medclip.app.limits import Refused, limits

__all__ = ["GuardedRoute", "UploadRoute", "counted", "failed", "in_thread", "refused_in_words"]

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Receive = Callable[[], Awaitable[Any]]

THREADS = 4  # the network is used by one at a time; the others read files and draw
FORM_BYTES = 1 << 20  # that a form may take around its files
_POOL = ThreadPoolExecutor(THREADS, "medclip")

HEADERS = {
    "Cache-Control": "no-store",  # answers show patients
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


async def in_thread(work: Callable[[], Answer]) -> Answer:
    """The result of some work that a thread does, so that the event loop can answer others meanwhile.

    Raises:
        Refused: 503 after the time limit; work that has begun then ends in the background, other work never begins.
    """
    seconds = limits().seconds
    try:
        return await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(_POOL, work), seconds)
    except TimeoutError as error:
        raise Refused(
            f"no answer within {seconds:g} s: the server is busy or the study is large. Ask again in a while.", 503
        ) from error


class GuardedRoute(APIRoute):
    """A route whose errors are ``{"detail": "words"}`` and whose log line names no study, prompt, path or person."""

    def body_limit(self) -> int:
        """Bytes that a request may have."""
        return limits().json_bytes

    def get_route_handler(self) -> Handler:
        """The stock handler, guarded."""
        handler: Handler = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            start = time.perf_counter()
            response = await self._answer(handler, request)
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            milliseconds = 1000 * (time.perf_counter() - start)
            logger.info("%s %s %d %.0f ms", request.method, self.path, response.status_code, milliseconds)
            return response

        return guarded

    async def _answer(self, handler: Handler, request: Request) -> Response:
        try:
            return await handler(_bounded(request, self.body_limit()))
        except HTTPException as error:  # such as that of MONAI Label's own authentication
            if isinstance(error.__cause__, Refused):  # FastAPI wraps what reading a body raises
                return _said(str(error.__cause__), error.__cause__.status)
            return _said(str(error.detail), error.status_code, error.headers)
        except RequestValidationError as error:
            return _said(_in_words(error), 422)
        except Refused as error:
            return _said(str(error), error.status)
        except Exception as error:
            return failed(f"{request.method} {self.path}", error)


class UploadRoute(GuardedRoute):
    """A guarded route that takes files."""

    def body_limit(self) -> int:
        """Bytes that a request may have."""
        return limits().upload_bytes + FORM_BYTES


def _bounded(request: Request, most: int) -> Request:
    """The request, refused as soon as its body is known to be too long."""
    return Request(request.scope, counted(request.headers.get("content-length", "0"), request.receive, most))


def counted(declared: str, receive: Receive, most: int) -> Receive:
    """A body's parts as they come, up to so many bytes.

    Args:
        declared: the header Content-Length, ``"0"`` if there is none.
        receive: of ASGI.
        most: bytes.

    Raises:
        Refused: 413, at once if the header says so, or by the part that is too much.
    """
    refusal = Refused(f"more than {most / (1 << 20):.4g} MB were sent: send less.", 413)
    if not declared.isdigit() or int(declared) > most:
        raise refusal
    count = 0

    async def next_part() -> Any:
        nonlocal count
        message = await receive()
        count += len(message.get("body", b""))
        if count > most:
            raise refusal
        return message

    return next_part


def failed(what: str, error: Exception) -> Response:
    """An error of ours, by its kind alone: its text, and the lines of its traceback, may hold a path or a name."""
    kind = type(error).__name__
    logger.error("%s failed: %s", what, kind)
    logger.debug("the traceback", exc_info=error)
    return _said(f"the server failed ({kind}). Start it with --verbose DEBUG to see in its log why.", 500)


async def refused_in_words(_: Any, error: Exception) -> Response:
    """A refusal from below a stock route, as its answer."""
    return _said(str(error), getattr(error, "status", 422))


def _said(text: str, status: int, headers: Any = None) -> Response:
    return JSONResponse({"detail": text}, status_code=status, headers=headers)


def _in_words(error: RequestValidationError) -> str:
    """What is wrong with a request, without its values."""
    return "; ".join(f"{'.'.join(str(part) for part in each['loc'][1:])}: {each['msg']}" for each in error.errors())
