"""The MONAI Label app: one trained bundle, its tasks, strategies, scoring and training, and the /medclip/ page."""

from __future__ import annotations

import logging
import math
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import nrrd
import torch
from fastapi import HTTPException
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.exception import MONAILabelException
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask

from monai_medclip import __version__
from monai_medclip.app.archive import Archive
from monai_medclip.app.datastores import guarded
from monai_medclip.app.dropped_files import decoded_bytes
from monai_medclip.app.ids import check_id, is_received
from monai_medclip.app.labels import FindingsLabels, ModelFacts, accept_submission
from monai_medclip.app.limits import Refused, limits
from monai_medclip.app.quiet import hush
from monai_medclip.app.readable import dicom_beside
from monai_medclip.app.scoring import ReadersAgreement
from monai_medclip.app.sessions import CheckedSessions
from monai_medclip.app.strategies import FarthestFromIndex, MostUncertain
from monai_medclip.app.tasks import Findings, Heatmap, ReportGrounding, SimilarCases, ZeroShot
from monai_medclip.app.training import FitReaderProbe
from monai_medclip.engines import BundleModel
from monai_medclip.engines.recent import Recent
from monai_medclip.index import EmbeddingIndex
from monai_medclip.notice import RESEARCH_USE
from monai_medclip.transforms import bad_input_cause

__all__ = ["MedCLIPApp"]

logger = logging.getLogger(__name__)

PROBE_FOLDER = "reader_probe"  # in the app's folder
_CONF = ("bundle", "index", "device", "threads", "server_mode")


class MedCLIPApp(MONAILabelApp):
    """A trained bundle behind MONAI Label.

    Args:
        app_dir: the app's folder, see `app_folder`.
        studies: a folder of images, or a DICOMweb URL.
        conf: ``bundle`` (needed): a training run's folder or a packed bundle; ``index``: the folder of
            an index of the same model, see `BundleModel.index`; ``device``; ``threads`` of the processor.

    Attributes:
        medclip: the model.
        index: the index, or None.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        """Open the bundle, then everything that asks it."""
        hush()
        self.medclip, self.index = _opened(conf)
        self.probe_folder = Path(app_dir) / PROBE_FOLDER
        self._sizes: Recent[int] = Recent(256)
        super().__init__(
            app_dir,
            studies,
            conf,
            name=f"MedCLIP: {self.medclip.name}",
            description=f"Heatmaps and scores of text prompts. {RESEARCH_USE}.",
            version=__version__,
        )

    def init_datastore(self) -> Any:
        """MONAI Label's datastore, with every id checked; radiographs may lie in a folder as DICOM files."""
        if not self.medclip.volumes and "*.dcm" not in settings.MONAI_LABEL_DATASTORE_FILE_EXT:
            settings.MONAI_LABEL_DATASTORE_FILE_EXT.extend(["*.dcm", "*.jpeg"])
        return guarded(super().init_datastore(), FindingsLabels)

    def init_infers(self) -> dict[str, InferTask]:
        """The tasks by the names that clients use."""
        tasks: dict[str, InferTask] = {
            "heatmap": Heatmap(self.medclip, Archive(getattr(self.datastore(), "_client", None))),
            "findings": Findings(self.medclip, self.probe_folder),
            "zero_shot": ZeroShot(self.medclip, self.probe_folder),
            "report_grounding": ReportGrounding(self.medclip),
        }
        return tasks | ({} if self.index is None else {"similar_cases": SimilarCases(self.medclip, self.index)})

    def init_strategies(self) -> dict[str, Strategy]:
        """Which image a reader should see next."""
        return super().init_strategies() | {
            "most_uncertain": MostUncertain(self.medclip, self._path_in),
            "farthest_from_index": FarthestFromIndex(self.medclip, self._path_in, index=self.index),
        }

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """How well the model agrees with the readers."""
        return {"readers_agreement": ReadersAgreement(self.medclip, self._path_in, folder=self.probe_folder)}

    def init_trainers(self) -> dict[str, TrainTask]:
        """The probe on the readers' findings."""
        return {"reader_probe": FitReaderProbe(self.medclip, self._path_in, folder=self.probe_folder)}

    def on_init_complete(self) -> None:
        """Once the server runs: our routes, and stock inference in threads."""
        super().on_init_complete()
        hush()
        server = sys.modules.get("monailabel.app")
        if server is not None:
            from monai_medclip.app.server import attach

            attach(server.app)

    def image_path(self, image_id: str) -> Path:
        """The file, or folder of slices, of a datastore's image.

        Raises:
            Refused: no such image.
        """
        datastore = self.datastore()
        if isinstance(datastore, DICOMWebDatastore):
            if not check_id(image_id).replace(".", "").isdigit():
                raise Refused("this is no SeriesInstanceUID: give one that GET /datastore lists.", 404)
        elif check_id(image_id) not in datastore.list_images():
            raise Refused("there is no such image: give an id that GET /datastore lists.", 404)
        uri = datastore.get_image_uri(image_id)
        if not uri or not Path(uri).exists():
            raise Refused("the image is not there any more: list the images again.", 404)
        return dicom_beside(Path(uri))

    def _path_in(self, datastore: Any, image_id: str) -> Path:
        """As strategies and training ask."""
        return self.image_path(image_id)

    def on_save_label(self, image_id: str, label_id: str) -> None:
        """A reader saved something: findings are checked and kept as training labels.

        Raises:
            HTTPException: 422 for findings that this bundle does not know.
        """
        try:
            accept_submission(self.datastore(), image_id, ModelFacts.of(self.medclip))
        except Exception as error:
            raise _in_words(error) from None

    def infer(self, request: dict[str, Any], datastore: Any = None) -> Any:
        """Stock inference on an image that may be asked for; errors in words, without a path of the server.

        Raises:
            HTTPException: 4xx with rule and remedy; 500 with the kind of the error.
        """
        try:
            image = str(request.get("image", ""))
            if request.get("save_label") and request.get("label_tag") == DefaultLabelTag.FINAL:
                raise Refused(
                    "a model's answer is no reader's label: leave save_label out, or label_tag original.", 400
                )
            if is_received(image) or (self._sessions and self._sessions.holds(image)):
                self._check_size(Path(image))
            else:
                self.image_path(image)
            return super().infer(request, datastore)
        except Exception as error:
            raise _in_words(error) from None

    def _check_size(self, path: Path) -> None:
        """Refuse a client's file that would fill the memory once it is unpacked; looked at once per file."""
        if not path.is_file():
            return  # a session of several slices: none of them is packed
        most, facts = limits().expanded_bytes, path.stat()
        size = self._sizes.get((str(path), facts.st_size, facts.st_mtime_ns), lambda: _unpacked_bytes(path, most))
        if size > most:
            raise Refused(f"the file takes more than {most >> 20} MB once unpacked: send less at a time.", 413)

    def infer_wsi(self, request: dict[str, Any], datastore: Any = None) -> Any:
        """Whole-slide images are none of ours, and MONAI Label would open any path for them."""
        raise HTTPException(404, "this app reads radiographs and CT, no whole-slide images.")

    def _download_dcmqi_tools(self) -> None:
        """Instead of asking the network for it, as MONAI Label does: dcmqi comes with the label extra."""
        beside = str(Path(sys.executable).parent)  # where pip has put it, also when the environment is not activated
        if beside not in os.environ.get("PATH", "").split(os.pathsep):
            os.environ["PATH"] = os.pathsep.join([beside, os.environ.get("PATH", "")])
        if shutil.which("itkimage2segimage") is None:
            logger.warning("no itkimage2segimage: output=dicom_seg will fail. Install it: pip install dcmqi")

    def _load_sessions(self, load: bool = False) -> CheckedSessions | None:
        if not load:
            return None
        return CheckedSessions(settings.MONAI_LABEL_SESSION_PATH, settings.MONAI_LABEL_SESSION_EXPIRY)


def _unpacked_bytes(path: Path, most: int) -> int:
    if path.suffix.lower() == ".nrrd":
        sizes = nrrd.read_header(str(path))["sizes"]
        return 8 * math.prod(int(size) for size in sizes)  # of the largest type
    return decoded_bytes(path, "the file", most)


def _opened(conf: dict[str, str]) -> tuple[BundleModel, EmbeddingIndex | None]:
    unknown = set(conf) - set(_CONF)
    if unknown or "bundle" not in conf:
        raise ValueError(
            f"--conf {', '.join(sorted(unknown)) or 'bundle'}: give --conf bundle FOLDER, and if you like "
            f"{', '.join(name for name in _CONF[1:-1])}; nothing else is read."
        )
    torch.set_num_threads(int(conf.get("threads", 1)))
    model = BundleModel.open(conf["bundle"], device=conf.get("device", "cpu"))
    index = model.index(conf["index"]) if conf.get("index") else None
    return model, index


def _in_words(error: Exception) -> Exception:
    """What a client is told: our own words whole, of others the kind alone, as they may hold paths and names."""
    if isinstance(error, HTTPException):
        return error
    if isinstance(error, Refused):
        return HTTPException(error.status, str(error))
    bad = bad_input_cause(error)
    if bad is not None:
        return HTTPException(422, f"the image cannot be used: {_without_paths(bad.reason)}. {bad.remedy}")
    if isinstance(error, MONAILabelException):
        return HTTPException(404, str(error.msg))
    if isinstance(error, ValueError):
        return HTTPException(422, _without_paths(str(error)))
    logger.error("inference failed: %s", type(error).__name__)
    logger.debug("the traceback", exc_info=error)
    return HTTPException(500, f"inference failed ({type(error).__name__}): start with --verbose DEBUG to see why.")


def _without_paths(text: str) -> str:
    return " ".join("the file" if word.count("/") > 1 or word.count("\\") > 1 else word for word in text.split(" "))
