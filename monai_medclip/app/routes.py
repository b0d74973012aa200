"""The routes of the /medclip/ page: what a study shows, asked by people and scripts without a viewer."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fastapi import APIRouter, Depends, Request
from fastapi.responses import FileResponse
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC
from monailabel.interfaces.utils.app import app_instance
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from monai_medclip.app import answers
from monai_medclip.app.dropped_files import DroppedFile
from monai_medclip.app.guard import GuardedRoute, UploadRoute, in_thread
from monai_medclip.app.limits import Limits, Refused, limits
from monai_medclip.app.uploads import UPLOAD, Place, Uploads
from monai_medclip.engines import BundleModel, Study
from monai_medclip.index import similar_cases
from monai_medclip.notice import RESEARCH_USE

__all__ = ["router"]

Answer = TypeVar("Answer")
Json = dict[str, Any]

PAGE = Path(__file__).parent / "page"
STATIC = {"medclip.css": "text/css"} | dict.fromkeys(("medclip.js", "server.js", "show.js"), "text/javascript")
POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_BOUNDS = Limits(0, 0)  # those that no environment changes

user_only = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))  # as of MONAI Label's own /infer
router = APIRouter(prefix="/medclip", tags=["MedCLIP"], route_class=GuardedRoute)
uploads = Uploads()


class Asked(BaseModel):
    """A question about a study; a field that no route knows is an error."""

    model_config = ConfigDict(extra="forbid")
    study: str = Field(min_length=1, max_length=300)


class AskedPicture(Asked):
    """Which slice to see."""

    slice: int | None = None  # None: the middle one


class AskedHeatmap(AskedPicture):
    """Where a prompt is seen; the default slice is that of the map's maximum."""

    prompt: str = Field(min_length=1, max_length=_BOUNDS.prompt_characters)
    method: str | None = Field(None, max_length=100)
    threshold: float = Field(0.25, ge=0, lt=1)  # share of the maximum below which the overlay is clear
    cls: str = Field("default", max_length=20)


class AskedReport(AskedPicture):
    """What a report's words and sentences say; the default slice of each sentence is that of its map's maximum."""

    report: str = Field(min_length=1, max_length=_BOUNDS.report_characters)
    method: str | None = Field(None, max_length=100)


class AskedSimilar(Asked):
    """How many cases."""

    k: int = Field(5, ge=1, le=_BOUNDS.cases)


@router.get("/", include_in_schema=False)
def page() -> FileResponse:
    """The page; it holds nothing of any patient, so it needs no login."""
    return FileResponse(PAGE / "index.html", media_type="text/html; charset=utf-8", headers=_PAGE_HEADERS)


@router.get("/static/{name}", include_in_schema=False)
def static(name: str) -> FileResponse:
    """Script and style of the page."""
    if name not in STATIC:
        raise HTTPException(404, "the page has no such part.")
    return FileResponse(PAGE / name, media_type=f"{STATIC[name]}; charset=utf-8", headers=_PAGE_HEADERS)


_PAGE_HEADERS = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}


@router.get("/info", summary="The model, its findings and methods, and the limits", dependencies=[user_only])
async def info() -> Json:
    """What can be asked here."""

    def told() -> Json:
        app, model, bounds = app_instance(), _model(), limits()
        return {
            "name": model.name,
            "version": model.version,
            "modality": "CT" if model.volumes else "radiograph",
            "findings": list(model.findings),
            "methods": list(model.methods),
            "has_index": app.index is not None,
            "limits": {
                "upload_bytes": bounds.upload_bytes,
                "upload_files": bounds.upload_files,
                "prompt_characters": bounds.prompt_characters,
                "prompts": bounds.prompts,
                "report_characters": bounds.report_characters,
                "cases": bounds.cases,
            },
            "intended_use": RESEARCH_USE,
        }

    return await in_thread(told)


@router.get("/studies", summary="Studies of the datastore", dependencies=[user_only])
async def studies() -> list[Json]:
    """At most 1000, by id."""

    def listed() -> list[Json]:
        known = sorted(str(key) for key in app_instance().datastore().list_images())
        return [{"id": key, "name": key} for key in known[: limits().studies]]

    return await in_thread(listed)


async def drop(request: Request) -> Json:
    """Keeps a study for an hour; it never reaches the datastore."""
    bounds = limits()
    # Not a parameter of this function: FastAPI would read a whole body before it asks who sends it.
    async with request.form(max_files=bounds.upload_files, max_fields=8) as form:
        parts = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
        files = [DroppedFile(part.filename or "file", part.file) for part in parts]
        if not files:
            raise Refused("no file was sent: send one or more as multipart/form-data.")
        return {"id": await in_thread(lambda: _keep(files, bounds))}


router.add_api_route(
    "/studies",
    drop,
    methods=["POST"],
    summary="Drop a study: one file, DICOM slices, or a zip file",
    dependencies=[user_only],
    route_class_override=UploadRoute,
)


@router.post("/picture", summary="A study as the model sees it", dependencies=[user_only])
async def picture(asked: AskedPicture) -> Json:
    """One slice of it."""
    return await _asked(asked, lambda model, study: answers.picture(model, study, asked.slice))


@router.post("/findings", summary="Scores of the model's findings", dependencies=[user_only])
async def findings(asked: Asked) -> Json:
    """All of them, highest first."""
    return await _asked(asked, answers.findings)


@router.post("/heatmap", summary="Where a prompt is seen", dependencies=[user_only])
async def heatmap(asked: AskedHeatmap) -> Json:
    """One slice of the map over the picture."""

    def explained(model: BundleModel, study: Study) -> Json:
        maps = model.heatmaps(study, [asked.prompt], method=asked.method, cls=asked.cls)
        return answers.heatmap(model, maps, threshold=asked.threshold, index=asked.slice)

    return await _asked(asked, explained)


@router.post("/report", summary="Words and sentences of a report", dependencies=[user_only])
async def report(asked: AskedReport) -> Json:
    """Which words carry the score of image and report, and where each sentence is seen."""

    def explained(model: BundleModel, study: Study) -> Json:
        return answers.report(model, study, asked.report, method=asked.method, index=asked.slice)

    return await _asked(asked, explained)


@router.post("/similar", summary="Similar cases of the index", dependencies=[user_only])
async def similar(asked: AskedSimilar) -> Json:
    """Nearest first; the study itself, by its id, is left out."""

    def found(model: BundleModel, study: Study) -> Json:
        index = app_instance().index
        if index is None:
            raise Refused("this server has no index of cases: start it with --conf index FOLDER.", 404)
        (cases,) = similar_cases(index, model.embedding(study)[None], asked.k, exclude_ids=(asked.study,))
        return {"cases": [answers.case(one) for one in cases], **answers.facts(model)}

    return await _asked(asked, found)


async def _asked(asked: Asked, answer: Callable[[BundleModel, Study], Json]) -> Json:
    """An answer about a study, worked out in a thread; errors say the study's name instead of its path."""

    def work() -> Json:
        start = time.perf_counter()
        place, model = _place(asked.study), _model()
        found = _cleanly(place, lambda: answer(model, model.study(place.path)))
        return {**found, "seconds": round(time.perf_counter() - start, 3)}

    return await in_thread(work)


def _cleanly(place: Place, work: Callable[[], Answer]) -> Answer:
    try:
        return work()
    except Refused:
        raise
    except ValueError as error:  # bad images (`BadInputError`) and bad questions, in words
        raise Refused(place.cleaned(str(error))) from error


def _keep(files: list[DroppedFile], bounds: Limits) -> str:
    """Keep a study that the model can read."""
    key = uploads.add(files, bounds)
    try:
        place = _place(key)
        _cleanly(place, lambda: _model().study(place.path))
    except BaseException:
        uploads.forget(key)
        raise
    return key


def _place(key: str) -> Place:
    """Where a study lies.

    Raises:
        Refused: an id that could be a path, or of no study.
    """
    if any(mark in key for mark in ("/", "\\", "\0")) or ".." in key:
        raise Refused("a study's id has neither slashes nor '..': take one from the list of studies.")
    unknown = Refused("there is no such study. It may have been forgotten: pick or drop it again.", 404)
    if key.startswith(UPLOAD):
        if (place := uploads.place(key)) is None:
            raise unknown
        return place
    try:
        path = Path(app_instance().image_path(key))
    except Refused:
        raise
    except (LookupError, ValueError, FileNotFoundError) as error:
        raise unknown from error
    return Place(path, {path: key, path.parent: "the studies"})


def _model() -> BundleModel:
    return app_instance().medclip
