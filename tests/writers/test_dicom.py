"""One call makes all DICOM results, the same again under the same names, and valid by dciodvfy."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pydicom
import pytest
import torch
from monai.data import MetaTensor

from monai_medclip.data import make_phantom
from monai_medclip.transforms import LoadCTd, LoadRadiographd
from monai_medclip.writers import (
    DICOM_KINDS,
    Statement,
    dicom_bytes,
    dicom_results,
    dicom_source,
    write_dicom_results,
)

from .dicom_sources import SAYS, SOURCES, TWO, own_map, write_film, write_source

pytest.importorskip("highdicom")


def uids(datasets) -> list[tuple[str, str]]:
    return [(one.SeriesInstanceUID, one.SOPInstanceUID) for one in datasets]


def test_usual_results_are_named_prompt_by_prompt_with_the_report_last(tmp_path):
    path = write_source(tmp_path, "film")
    files = write_dicom_results(tmp_path / "out", path, own_map(path).repeat(2, 1, 1), TWO)
    assert [file.name for file in files] == [
        "parametric_map_01_left-pleural-effusion.dcm",
        "capture_01_left-pleural-effusion.dcm",
        "parametric_map_02_nodule.dcm",
        "capture_02_nodule.dcm",
        "report.dcm",
    ]
    read = [pydicom.dcmread(file) for file in files]
    assert [one.Modality for one in read] == ["OT", "OT", "OT", "OT", "SR"]
    assert len({one.SeriesInstanceUID for one in read}) == len({one.SeriesNumber for one in read}) == 5
    assert {one.StudyInstanceUID for one in read} == {pydicom.dcmread(path).StudyInstanceUID}
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == sorted(file.name for file in files)


def test_the_same_again_has_the_same_uids(tmp_path):
    path = write_source(tmp_path, "axial")
    first = dicom_results(path, own_map(path), SAYS, kinds=DICOM_KINDS)
    again = dicom_results(dicom_source(path), own_map(path), SAYS, kinds=DICOM_KINDS)
    assert uids(first) == uids(again)


@pytest.mark.parametrize(
    "change",
    [
        {"answers": (Statement("effusion", 1.6, 0.83),)},
        {"method": "gradcam"},
        {"model": "another"},
        {"model_version": "ba9876543210"},
    ],
)
def test_another_prompt_method_or_model_makes_other_objects(tmp_path, change):
    path = write_source(tmp_path, "axial")
    first = dicom_results(path, own_map(path), SAYS, kinds=DICOM_KINDS)
    other = dicom_results(path, own_map(path), SAYS._replace(**change), kinds=DICOM_KINDS)
    assert not set(sum(uids(first), ())) & set(sum(uids(other), ()))


def test_another_image_makes_other_objects(tmp_path):
    paths = [write_film(tmp_path / name) for name in "ab"]
    first, other = (dicom_results(path, own_map(path), SAYS, kinds=DICOM_KINDS) for path in paths)
    assert not set(sum(uids(first), ())) & set(sum(uids(other), ()))


def test_bytes_are_a_dicom_file(tmp_path):
    path = write_source(tmp_path, "film")
    (dataset,) = dicom_results(path, own_map(path), SAYS, kinds=("parametric_map",))
    (file,) = write_dicom_results(tmp_path / "out", path, own_map(path), SAYS, kinds=("parametric_map",))
    assert dicom_bytes(dataset)[128:132] == b"DICM"
    assert pydicom.dcmread(file).FloatPixelData == dataset.FloatPixelData


@pytest.mark.parametrize(
    ("maps", "kinds", "message"),
    [
        (1, (), "name one or more of parametric_map, segmentation, capture, report"),
        (1, "report", "name one or more"),
        (1, ("report", "picture"), "kinds="),
        (2, ("report",), "2 maps for 1 answers"),
        (0, ("capture", "report"), "capture need maps"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, maps, kinds, message):
    path = write_source(tmp_path, "film")
    given = own_map(path).repeat(maps, 1, 1) if maps else None
    with pytest.raises(ValueError, match=message):
        dicom_results(path, given, SAYS, kinds=kinds)


def test_a_report_of_nothing_is_refused(tmp_path):
    path = write_source(tmp_path, "film")
    with pytest.raises(ValueError, match="no answer and no finding"):
        dicom_results(path, None, SAYS._replace(answers=(), findings=()), kinds=("report",))


def errors(file: Path) -> list[str]:
    """What dciodvfy has against a file."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is not installed: apt install dicom3tools")
    done = subprocess.run([program, str(file)], capture_output=True, text=True, errors="replace")
    lines = (done.stderr + done.stdout).splitlines()
    assert any("IOD" in line or line.strip() for line in lines)  # it has said what it took the object for
    return [line for line in lines if line.startswith("Error")]


def blob(path: str) -> MetaTensor:
    """Two maps on a source's grid: heat in its middle, and the opposite."""
    source = dicom_source(path)
    load = LoadCTd("image") if source.stack else LoadRadiographd("image")
    image = load({"image": path})["image"]
    grid = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in image.shape[1:]), indexing="ij")
    heat = torch.exp(-8 * sum(axis**2 for axis in grid)) - 0.05
    return MetaTensor(torch.stack([heat, -heat])).copy_meta_from(image)


@pytest.mark.parametrize("kind", SOURCES)
def test_small_sources_give_valid_objects(tmp_path, kind):
    path = write_source(tmp_path, kind)
    for file in write_dicom_results(tmp_path / "out", path, own_map(path, offset=10.24), SAYS, kinds=DICOM_KINDS):
        assert errors(file) == [], file.name


@pytest.mark.parametrize(
    "name",
    [
        "dicom/cxr_pa_RG1_uncompressed.dcm",
        "dicom/cxr_pa_RG1_J2KI.dcm",
        "dicom/ct_chest_slice_128.dcm",
        "dicom_series_lidc0001",
    ],
)
def test_real_images_give_valid_objects(tmp_path, shared_data, name):
    if "J2K" in name:
        pytest.importorskip("openjpeg")
    path = str(shared_data / name)
    for file in write_dicom_results(tmp_path, path, blob(path), TWO, kinds=DICOM_KINDS):
        assert errors(file) == [], file.name


@pytest.mark.parametrize("modality", ["DX", "CT"])
def test_the_phantom_gives_valid_objects(tmp_path, modality):
    make_phantom(tmp_path / "phantom", patients=1, modality=modality, image_size=64, progress=False)
    first = next((tmp_path / "phantom" / "images").rglob("*.dcm"))
    path = str(first if modality == "DX" else first.parent)
    for file in write_dicom_results(tmp_path / "out", path, blob(path), TWO, kinds=DICOM_KINDS):
        assert errors(file) == [], file.name
