"""The module and monailabel's own module code against servers that run: phantoms whose lesions are known."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

pytest.importorskip("slicer_core", reason="pip install slicer-core, see tests/slicer/README.md")
pytest.importorskip("trame_slicer", reason="pip install trame-slicer slicer-layer-dm, see tests/slicer/README.md")
from MedCLIP import MedCLIPLogic
from MedCLIPLib.client import ServerError
from MedCLIPLib.known_ids import IMAGE_ID_ATTRIBUTE
from MedCLIPLib.questions import said
from MedCLIPLib.volumes import peak_ras, save_volume
from PIL import Image, ImageDraw
from slicer_core import vtkSegmentationCore
from trame_slicer.core import SlicerApp

import slicer

from .scenes import affine_of, drawn

TRIED = 8  # lesions; a small model does not find every one
SEEN = 0.5  # of them at least: what chance would give is the lesions' share of the image, a few percent


class Lesion(NamedTuple):
    """One patient's image, and one finding in it."""

    id: str  # of the image in a server of the same folder
    finding: str
    files: list[str]
    mask: Path

    def holds(self, volume: Any, ras: tuple[float, float, float]) -> bool:
        """Whether a place in a volume lies in the lesion."""
        if self.mask.suffix == ".png":  # rows and columns of the film itself
            column, row, _ = place(volume, ras)
            return bool(np.asarray(Image.open(self.mask))[row, column])
        mask = read(self.mask, slicer.vtkMRMLLabelMapVolumeNode())
        i, j, k = place(mask, ras)
        return bool(slicer.util.arrayFromVolume(mask)[k, j, i])


class Live(NamedTuple):
    """A server and the phantom that it is asked about."""

    address: str
    lesions: list[Lesion]


def place(volume: Any, ras: tuple[float, float, float]) -> list[int]:
    """The voxel (i, j, k) at a place."""
    return np.rint(np.linalg.solve(affine_of(volume), (*ras, 1)))[:3].astype(int).tolist()


def read(file: Path | str, node: Any) -> Any:
    """A file as a node outside any scene."""
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(file))
    assert storage.ReadData(node)
    return node


def lesions(folder: Path) -> list[Lesion]:
    """What a phantom's tables say."""
    images = {row["id"]: folder / row["file"] for row in csv.DictReader((folder / "manifest.csv").open())}
    found = []
    for row in csv.DictReader((folder / "masks.csv").open()):
        image = images[row["id"]]
        files = sorted(str(file) for file in image.iterdir()) if image.is_dir() else [str(image)]
        found.append(Lesion(row["id"], row["label"], files, folder / row["file"]))
    return found[:TRIED]


@pytest.fixture(params=["MEDCLIP_LIVE_XRAY", "MEDCLIP_LIVE_CT"])
def live(request: pytest.FixtureRequest) -> Live:
    told = os.environ.get(request.param, "").split(maxsplit=1)
    if len(told) != 2:
        pytest.skip(f'no server: set {request.param}="ADDRESS PHANTOM_FOLDER", see tests/slicer/README.md')
    return Live(told[0], lesions(Path(told[1])))


@pytest.fixture
def logic(app: SlicerApp, live: Live) -> MedCLIPLogic:
    made = MedCLIPLogic(app.scene)
    made.info = made.connect_server(live.address)
    return made


@pytest.fixture(scope="module")
def pictures() -> Iterator[list[Image.Image]]:
    """Views for the documentation, side by side in one file if one is asked for."""
    kept: list[Image.Image] = []
    yield kept
    file = os.environ.get("MEDCLIP_SCREENSHOT")
    if file and kept:
        sheet = Image.new("RGB", (sum(picture.width for picture in kept), kept[0].height))
        for index, picture in enumerate(kept):
            sheet.paste(picture, (index * picture.width, 0))
        sheet.save(file, optimize=True)


def load(app: SlicerApp, lesion: Lesion) -> Any:
    """An image as Slicer's DICOM reader gives it."""
    (volume,) = app.io_manager.load_volumes(lesion.files)
    return volume


def test_maps_are_highest_in_the_lesions_on_the_grid_of_the_image(app, logic, live, pictures):
    seen = 0
    for lesion in live.lesions:
        volume = load(app, lesion)
        answer = logic.run(volume, lesion.finding)
        heat = answer.volume
        assert heat.GetImageData().GetDimensions() == volume.GetImageData().GetDimensions()
        np.testing.assert_allclose(affine_of(heat), affine_of(volume), atol=1e-3)
        assert 0 <= answer.heatmap.score.probability <= 1
        hit = lesion.holds(volume, peak_ras(heat))
        if hit and not seen:
            keep(app, volume, answer, pictures)
        seen += hit
    assert seen >= SEEN * len(live.lesions)


def keep(app: SlicerApp, volume: Any, answer: Any, pictures: list[Image.Image]) -> None:
    """Take a picture of the view, with what was asked."""
    picture = Image.fromarray(drawn(app, volume, answer.volume, 0.65, size=420).astype(np.uint8))
    words = said(answer).split(";")[0]
    ImageDraw.Draw(picture).text((10, 8), words, fill="white", font_size=15, stroke_width=2, stroke_fill="black")
    pictures.append(picture)


def test_all_findings_are_scored_as_the_prompts_of_their_names_are(app, logic, live):
    volume = load(app, live.lesions[0])
    scores = logic.findings(volume)
    assert [score.probability for score in scores] == sorted((score.probability for score in scores), reverse=True)
    assert len(scores) > 1
    asked = logic.run(volume, scores[-1].finding).heatmap.score
    assert asked.logit == pytest.approx(scores[-1].logit, abs=1e-3)


def test_the_servers_own_copy_gives_the_map_of_what_was_sent(app, logic, live):
    lesion = live.lesions[0]
    volume = load(app, lesion)
    sent = slicer.util.arrayFromVolume(logic.run(volume, lesion.finding).volume).copy()
    volume.SetAttribute(IMAGE_ID_ATTRIBUTE, lesion.id)
    if not logic.client.has_image(lesion.id):
        pytest.skip("the server's folder is another one than the phantom's")
    logic._sessions.clear()
    heat = logic.run(volume, lesion.finding).volume
    assert logic._sessions == {}
    np.testing.assert_allclose(affine_of(heat), affine_of(volume), atol=1e-3)
    own = slicer.util.arrayFromVolume(heat)
    assert np.corrcoef(own.ravel(), sent.ravel())[0, 1] > 0.99


def test_similar_cases_come_from_the_servers_index(app, logic, live):
    if not logic.info.has_index:
        pytest.skip("the server has no index: start it with --conf index FOLDER")
    cases = logic.similar_cases(load(app, live.lesions[0]))
    assert len(cases) > 1
    assert [case.cosine for case in cases] == sorted((case.cosine for case in cases), reverse=True)
    assert all(case.id and case.text for case in cases)


def test_the_server_says_what_is_wrong(app, logic, live):
    volume = load(app, live.lesions[0])
    with pytest.raises(ServerError, match="method='jet': use one of"):
        logic.run(volume, "nodule", method="jet")


# --- what monailabel's own module does with our app


class _Widgetless(ModuleType):
    """Stands in for Qt: classes can be derived from it, and nothing is drawn."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@pytest.fixture
def stock(app: SlicerApp, live: Live, monkeypatch, tmp_path) -> SimpleNamespace:
    """monailabel's module from where its wheel installed it, with a segmentation node and a connected logic."""
    folder = os.environ.get("MEDCLIP_STOCK_MODULE", "")
    if not (Path(folder) / "MONAILabel.py").is_file():
        pytest.skip("no stock module: set MEDCLIP_STOCK_MODULE to monailabel/plugins/slicer/MONAILabel of a venv")
    pytest.importorskip("requests", reason="the stock client needs it")
    base = type("Base", (), {"__init__": lambda self, *_: None})
    names = ("", "Widget", "Logic", "Test")
    modules = {
        **{name: _Widgetless(name) for name in ("qt", "ctk", "SampleData")},
        "slicer.i18n": SimpleNamespace(tr=str, translate=lambda _, text: text),
        "slicer.ScriptedLoadableModule": SimpleNamespace(**{f"ScriptedLoadableModule{name}": base for name in names}),
        "SimpleITK": SimpleNamespace(ReadImage=str),
        "vtkSegmentationCore": vtkSegmentationCore,
        "sitkUtils": SimpleNamespace(PushVolumeToSlicer=lambda file, _, className: pushed(app.scene, file)),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.syspath_prepend(folder)
    segmentations = app.segmentations_logic
    monkeypatch.setattr(slicer, "mrmlScene", app.scene, raising=False)
    holder = SimpleNamespace(segmentations=SimpleNamespace(logic=lambda: segmentations))
    monkeypatch.setattr(slicer, "modules", holder, raising=False)
    monkeypatch.setattr(slicer.util, "settingsValue", lambda key, default, **_: False)
    monkeypatch.delitem(sys.modules, "MONAILabel", raising=False)
    import MONAILabel

    logic = MONAILabel.MONAILabelLogic(str(tmp_path), live.address, None, "reader")
    widget = SimpleNamespace(_segmentNode=app.scene.AddNewNodeByClass("vtkMRMLSegmentationNode"), file_ext=".nii.gz")
    return SimpleNamespace(logic=logic, widget=widget, update=MONAILabel.MONAILabelWidget.updateSegmentationMask)


def pushed(scene: Any, file: str) -> Any:
    """What sitkUtils does, which slicer-core lacks."""
    return scene.AddNode(read(file, slicer.vtkMRMLLabelMapVolumeNode()))


def test_the_stock_module_shows_the_bands_of_our_map(app, logic, live, stock, tmp_path):
    lesion = live.lesions[0]
    volume = load(app, lesion)
    save_volume(volume, tmp_path / "volume.nii.gz")
    session = stock.logic.create_session(str(tmp_path / "volume.nii.gz"))["session_id"]
    file, facts = stock.logic.infer("heatmap", "volume", {"prompt": lesion.finding}, session_id=session)
    names = [name for name, _ in sorted(facts["label_names"].items(), key=lambda item: item[1])]
    assert stock.update(stock.widget, file, names)
    segmentation = stock.widget._segmentNode.GetSegmentation()
    found = [segmentation.GetNthSegment(index).GetName() for index in range(segmentation.GetNumberOfSegments())]
    assert found == names == ["heat 25-50%", "heat 50-75%", "heat 75-100%"]
    bands = slicer.util.arrayFromVolume(read(file, slicer.vtkMRMLLabelMapVolumeNode()))
    values = slicer.util.arrayFromVolume(logic.run(volume, lesion.finding).volume)
    np.testing.assert_array_equal(np.unique(bands), [0, 1, 2, 3])
    assert ((bands > 0) == (values >= 0.25 * values.max())).mean() > 0.999


def test_the_stock_module_gets_markups_with_the_findings(app, live, stock, tmp_path):
    save_volume(load(app, live.lesions[0]), tmp_path / "volume.nii.gz")
    session = stock.logic.create_session(str(tmp_path / "volume.nii.gz"))["session_id"]
    file, facts = stock.logic.infer("findings", "volume", {}, session_id=session)
    storage = slicer.vtkMRMLMarkupsJsonStorageNode()
    storage.SetScene(app.scene)
    boxes = [storage.AddNewMarkupsNodeFromFile(file, "", number) for number in range(len(facts["scores"]))]
    texts = {box.GetNthControlPointLabel(0) for box in boxes}
    assert all(box.IsA("vtkMRMLMarkupsROINode") and box.GetDisplayNode().GetPointLabelsVisibility() for box in boxes)
    assert texts == {f"{score['finding']} p={score['probability']:.2f}" for score in facts["scores"]}
    json.dumps(facts, allow_nan=False)
