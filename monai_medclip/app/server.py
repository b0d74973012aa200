"""MONAI Label's server with our routes.

`MedCLIPApp` attaches them when the server starts. With ``--uvicorn_app monai_medclip.app.server:app`` they are there
from the beginning, for those who run the application in a server of their own.
"""

from __future__ import annotations

from fastapi import FastAPI
from monailabel.app import app
from monailabel.config import settings

from monai_medclip.app.body_limit import LimitedBodies
from monai_medclip.app.guard import refused_in_words
from monai_medclip.app.limits import Refused, limits
from monai_medclip.app.routes import router
from monai_medclip.app.signed_tokens import accept_signed_tokens
from monai_medclip.app.stock_infer import put_in_threads

__all__ = ["app", "attach"]


def attach(server: FastAPI) -> None:
    """Add our routes to MONAI Label's application, once.

    Raises:
        ValueError: a limit in the environment is no positive number; better now than when somebody asks.
    """
    limits()
    if getattr(server.state, "medclip", False):
        return
    server.middleware_stack = None  # built before the app is there; the next request builds it again, with these
    server.add_middleware(LimitedBodies)
    server.add_exception_handler(Refused, refused_in_words)
    server.include_router(router, prefix=settings.MONAI_LABEL_API_STR)
    put_in_threads(server)
    accept_signed_tokens()
    server.state.medclip = True


attach(app)
