"""What MONAI Label's own routes lack: bodies of bounded size, and errors that tell the log nothing of a patient."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from monai_medclip.app.guard import FORM_BYTES, Receive, counted, failed, refused_in_words
from monai_medclip.app.limits import Refused, limits

__all__ = ["LimitedBodies"]

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class LimitedBodies:
    """ASGI middleware: 413 as soon as a body is known to be longer than MEDCLIP_MAX_UPLOAD_MB, 500 without a text."""

    def __init__(self, app: App) -> None:
        """Stand before an application."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on while it is short enough."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = False

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal began
            began = True
            await send(message)

        declared = dict(scope["headers"]).get(b"content-length", b"0").decode("latin-1")
        try:
            await self.app(scope, counted(declared, receive, limits().upload_bytes + FORM_BYTES), watched)
        except Refused as error:
            await (await refused_in_words(None, error))(scope, receive, send)
        except Exception as error:
            if began:
                raise
            await failed(scope["method"], error)(scope, receive, send)
