"""What the model says of the datastore's images, kept on disk, so that each image is read once."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pydicom
import torch
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.interfaces.datastore import Datastore
from torch import Tensor

from monai_medclip.engines import BundleModel
from monai_medclip.engines.recent import Recent
from monai_medclip.files import atomic_write
from monai_medclip.transforms.dicom import is_dicom

__all__ = ["Budget", "ImageAnswer", "ImageAnswers", "ImagePath", "SomeAnswers", "stock_path"]

ImagePath = Callable[[Datastore, str], str | Path]
"""Where an image of a datastore lies: a file, or a folder of slices."""

logger = logging.getLogger(__name__)

KEPT = ".medclip"  # in the datastore's folder, which for an archive is its local cache
IN_MEMORY = 4096  # answers, a few kilobytes each


class ImageAnswer(NamedTuple):
    """What the model says of one image."""

    embedding: Tensor  # (E,) float32, unit
    logits: tuple[float, ...]  # F, in the order of the model's findings
    probabilities: tuple[float, ...] | None  # F; None where the rule compares with nothing
    patient: str  # digest of the PatientID, the same for all images of a patient; "" where no header says


class SomeAnswers(NamedTuple):
    """Answers about images, as far as a budget went."""

    found: dict[str, ImageAnswer]  # by id
    read: int  # images that were read now; the others of `found` were known
    waiting: tuple[str, ...]  # images that the budget did not reach
    unreadable: int


class Budget:
    """How much may be read within one request; at least one image may.

    Args:
        images: that are read, at most.
        seconds: after which no further image is begun.
    """

    def __init__(self, images: int, seconds: float) -> None:
        """The clock starts."""
        self.images, self.read = images, 0
        self._end = time.monotonic() + seconds

    def spend(self) -> bool:
        """Whether one more may be read; it then counts."""
        if self.read and (self.read >= self.images or time.monotonic() > self._end):
            return False
        self.read += 1
        return True


def stock_path(datastore: Datastore, image_id: str) -> str:
    """Where MONAI Label says that an image lies."""
    return str(datastore.get_image_uri(image_id))


class ImageAnswers:
    """Embeddings and zero-shot scores of images, kept beside the datastore's own files.

    An answer holds for one model with its prompts and rule, and for one state of the file (size and time); series of an
    archive do not change. No identifier is kept in clear: images and patients have digests with a secret of the
    datastore's folder.

    Args:
        model: that is asked.
        image_path: where an image lies.
    """

    def __init__(self, model: BundleModel, image_path: ImagePath = stock_path) -> None:
        """See the class."""
        self.model, self.image_path = model, image_path
        asked = repr((model.version, model.rule, model.known))
        self._name = hashlib.sha256(asked.encode()).hexdigest()[:12]
        self._memory: Recent[ImageAnswer] = Recent(IN_MEMORY)
        self._unreadable: dict[str, str] = {}  # id -> stamp of the file that could not be read

    def get(self, datastore: Datastore, image_id: str) -> ImageAnswer:
        """The answer about one image, which is read if it was not before.

        Raises:
            BadInputError: the image cannot be used.
            Exception: whatever finding the image raises.
        """
        return self._answer(datastore, image_id, _stamp(datastore, image_id), ask=True)

    def some(self, datastore: Datastore, images: Iterable[str], budget: Budget) -> SomeAnswers:
        """Answers about many images: all that are known, and new ones within a budget; no image's fault ends it.

        Args:
            datastore: that holds them.
            images: ids, in the order in which new ones are read.
            budget: for the new ones.
        """
        found: dict[str, ImageAnswer] = {}
        before, unreadable = budget.read, 0
        waiting: list[str] = []
        for image_id in images:
            try:
                stamp = _stamp(datastore, image_id)
                if self._unreadable.get(image_id) == stamp:
                    unreadable += 1
                    continue
                with suppress(_NotKept):
                    found[image_id] = self._answer(datastore, image_id, stamp, ask=False)
                    continue
                if not budget.spend():
                    waiting.append(image_id)
                    continue
                found[image_id] = self._answer(datastore, image_id, stamp, ask=True)
            except Exception as error:  # a reader's next image must not depend on a file that nobody can read
                logger.warning("an image of the datastore cannot be read: %s", type(error).__name__)
                self._unreadable[image_id] = _stamp_or_none(datastore, image_id)
                unreadable += 1
        return SomeAnswers(found, budget.read - before, tuple(waiting), unreadable)

    def digest(self, datastore: Datastore, text: str) -> str:
        """16 hexadecimal digits that stand for an identifier, and mean nothing without the datastore's secret."""
        return hashlib.blake2b(text.encode(), key=_secret(_kept_folder(datastore)), digest_size=8).hexdigest()

    def _answer(self, datastore: Datastore, image_id: str, stamp: str, *, ask: bool) -> ImageAnswer:
        return self._memory.get((image_id, stamp), lambda: self._kept(datastore, image_id, stamp, ask=ask))

    def _kept(self, datastore: Datastore, image_id: str, stamp: str, *, ask: bool) -> ImageAnswer:
        """From disk; if it is not there the model is asked, or else `_NotKept` is raised."""
        path = _kept_folder(datastore) / self._name / f"{self.digest(datastore, image_id)}.json"
        with suppress(OSError, ValueError, KeyError, TypeError):
            return _from_json(json.loads(path.read_text(encoding="utf-8")), stamp)
        if not ask:
            raise _NotKept
        answer = self._asked(datastore, image_id)
        with suppress(OSError), atomic_write(path) as file:  # a folder that cannot be written to costs another reading
            file.write_text(json.dumps(_as_json(answer, stamp)), encoding="utf-8")
        return answer

    def _asked(self, datastore: Datastore, image_id: str) -> ImageAnswer:
        path = Path(self.image_path(datastore, image_id))
        study = self.model.study(path)
        scores = self.model.scores(study)
        given = [score.probability for score in scores]
        probabilities = tuple(p for p in given if p is not None)
        patient = _patient_id(path)
        return ImageAnswer(
            self.model.embedding(study).detach().float().cpu(),
            tuple(score.logit for score in scores),
            probabilities if len(probabilities) == len(given) else None,
            self.digest(datastore, f"patient {patient}") if patient else "",
        )


class _NotKept(Exception):  # noqa: N818  # nothing went wrong
    """An image that was not read yet."""


def _as_json(answer: ImageAnswer, stamp: str) -> dict[str, Any]:
    return answer._asdict() | {"embedding": answer.embedding.tolist(), "stamp": stamp}


def _from_json(content: dict[str, Any], stamp: str) -> ImageAnswer:
    if content["stamp"] != stamp:
        raise ValueError("of another file")
    given = content["probabilities"]
    return ImageAnswer(
        torch.tensor(content["embedding"], dtype=torch.float32),
        tuple(map(float, content["logits"])),
        None if given is None else tuple(map(float, given)),
        str(content["patient"]),
    )


def _stamp(datastore: Any, image_id: str) -> str:
    """What changes when the image does; empty for an archive, whose series keep what their UID stands for."""
    if isinstance(datastore, DICOMWebDatastore):
        return ""
    facts = Path(datastore.get_image_uri(image_id)).stat()
    return f"{facts.st_size} {facts.st_mtime_ns}"


def _stamp_or_none(datastore: Any, image_id: str) -> str:
    try:
        return _stamp(datastore, image_id)
    except Exception:  # it is gone: when it comes back it has a stamp
        return "gone"


def _patient_id(path: Path) -> str:
    """PatientID, with its issuer, of a DICOM file or of a folder's first; empty where there is none."""
    files = sorted(path.iterdir())[:1] if path.is_dir() else [path]
    if not files or not is_dicom(files[0]):
        return ""
    header = pydicom.dcmread(files[0], stop_before_pixels=True, specific_tags=["PatientID", "IssuerOfPatientID"])
    patient = str(header.get("PatientID") or "").strip()
    return f"{header.get('IssuerOfPatientID') or ''} {patient}" if patient else ""


def _kept_folder(datastore: Any) -> Path:
    """MONAI Label has no public name for the folder of a datastore."""
    return Path(datastore._datastore_path) / KEPT


def _secret(folder: Path) -> bytes:
    """32 random bytes, made once per folder and readable by its owner."""
    path = folder / "secret"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        own = folder / f"secret.{os.getpid()}.{secrets.token_hex(4)}"
        with os.fdopen(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
        with suppress(FileExistsError):  # another process was faster: its secret is the secret
            os.link(own, path)
        own.unlink()
    return path.read_bytes()
