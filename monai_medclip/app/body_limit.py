"""What MONAI Label's own routes lack: bodies of bounded size, and errors that tell the log nothing of a patient."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi.responses import JSONResponse

from monai_medclip.app.guard import FORM_BYTES
from monai_medclip.app.limits import Refused, limits

__all__ = ["LimitedBodies", "refused_in_words"]

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class LimitedBodies:
    """ASGI middleware: 413 as soon as a body is known to be longer than MEDCLIP_MAX_UPLOAD_MB."""

    def __init__(self, app: App) -> None:
        """Stand before an application."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on while it is short enough."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        most = limits().upload_bytes + FORM_BYTES
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > most:
            await _too_long(most)(scope, receive, send)
            return
        count = 0

        async def counted() -> MutableMapping[str, Any]:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if count > most:
                raise Refused(_said(most), 413)
            return message

        began = False

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            await self.app(scope, counted, watched)
        except Exception as error:  # a stock route's: its traceback may hold a path, an id or a name
            logger.error("%s failed: %s", scope["method"], type(error).__name__)
            logger.debug("the traceback", exc_info=True)
            if began:
                raise
            kind = type(error).__name__
            detail = f"the server failed ({kind}). Start it with --verbose DEBUG to see in its log why."
            await JSONResponse({"detail": detail}, status_code=500)(scope, receive, send)


async def refused_in_words(_: Any, error: Exception) -> JSONResponse:
    """A refusal from below a stock route, as its answer."""
    status = error.status if isinstance(error, Refused) else 422
    return JSONResponse({"detail": str(error)}, status_code=status)


def _too_long(most: int) -> JSONResponse:
    return JSONResponse({"detail": _said(most)}, status_code=413)


def _said(most: int) -> str:
    return f"more than {most / (1 << 20):.4g} MB were sent: send less."
