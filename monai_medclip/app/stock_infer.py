"""MONAI Label's own inference route, in threads: it runs on the event loop as it comes, and nobody else is answered."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, File, Form, UploadFile
from fastapi.background import BackgroundTasks
from monailabel.config import RBAC_USER, settings
from monailabel.endpoints.infer import ResultType, run_inference
from monailabel.endpoints.user.auth import RBAC

from monai_medclip.app.guard import UploadRoute, in_thread
from monai_medclip.app.limits import Refused

__all__ = ["put_in_threads"]

router = APIRouter(prefix="/infer", tags=["Infer"], route_class=UploadRoute)
user_only = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))  # as of the stock route


@router.post("/{model}", summary=f"{RBAC_USER}Run Inference for supported model", dependencies=[user_only])
async def api_run_inference(
    background_tasks: BackgroundTasks,
    model: str,
    image: str = "",
    session_id: str = "",
    params: Annotated[str, Form()] = "{}",
    file: Annotated[UploadFile | None, File()] = None,
    label: Annotated[UploadFile | None, File()] = None,
    output: ResultType | None = None,
) -> Any:
    """As MONAI Label's endpoint of this name, whose function it calls in a thread."""
    _check_json(params)
    gone = False

    def answered() -> Any:
        try:
            found = run_inference(background_tasks, model, image, session_id, params, file, label, output)
        except Exception:
            _clean_up(background_tasks)
            raise
        if gone:
            _clean_up(background_tasks)
        return found

    try:
        return await in_thread(answered)
    except Refused:  # too late: nobody waits for what the thread will find
        gone = True
        raise


def _check_json(params: str) -> None:
    try:
        found = json.loads(params or "{}")
    except ValueError as error:
        raise Refused('params is no JSON: give an object such as {"prompt": "nodule"}.', 400) from error
    if not isinstance(found, dict):
        raise Refused('params is JSON, but no object: give one such as {"prompt": "nodule"}.', 400)


def _clean_up(background_tasks: BackgroundTasks) -> None:
    """Remove what was received and made: a server does so only after an answer that went well."""
    for task in background_tasks.tasks:
        task.func(*task.args, **task.kwargs)


def put_in_threads(app: FastAPI) -> None:
    """Answer ``POST /infer/{model}`` in threads from now on; the stock route stays behind as it was."""
    before = len(app.router.routes)
    app.include_router(router, prefix=settings.MONAI_LABEL_API_STR)
    ours = app.router.routes[before:]
    app.router.routes[:] = [*ours, *app.router.routes[:before]]  # the first that matches answers
