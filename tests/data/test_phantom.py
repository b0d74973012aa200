"""The phantom's folder: written, read back equal, reused, resumed, refused."""

import csv
import filecmp
import json
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image

from monai_medclip.data import PhantomPatient, check_splits, make_phantom, read_manifest
from monai_medclip.data.phantom_files import write_image
from monai_medclip.data.phantom_lesions import FINDING_NAMES


def _make(folder, **changes):
    options = {"patients": 8, "seed": 7, "image_size": 64, "progress": False} | changes
    return make_phantom(folder, **options)


def _files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("phantom")
    _make(path, patients=60, workers=2)
    return path


def test_the_manifest_reads_back_with_labels_masks_and_texts(folder):
    items = read_manifest(folder / "manifest.csv", findings=FINDING_NAMES)
    assert len(items) == 60
    assert [sum(item["split"] == name for item in items) for name in ("train", "val", "test")] == [42, 6, 12]
    for index, item in enumerate(items):
        patient = PhantomPatient(7, index)
        has = {lesion.finding for lesion in patient.findings}
        assert item["label"] == [float(name in has) for name in FINDING_NAMES]
        assert set(item.get("masks", {})) == has
        assert item["text"] == patient.report


def test_pixels_and_masks_are_the_patients(folder):
    item = read_manifest(folder / "manifest.csv")[1]
    xray = PhantomPatient(7, 1).xray(64)
    stored = pydicom.dcmread(item["image"]).pixel_array
    assert np.abs(stored / 4095 - xray.image).max() <= 0.5 / 4095 + 1e-6
    for label, path in item["masks"].items():
        assert np.array_equal(np.asarray(Image.open(path)), xray.masks[label])


def test_masks_state_their_area_and_boxes_enclose_them(folder):
    boxes = {(row["id"], row["label"]): row for row in csv.DictReader((folder / "boxes.csv").open())}
    for row in csv.DictReader((folder / "masks.csv").open()):
        mask = np.asarray(Image.open(folder / row["file"]))
        assert float(row["area_frac"]) == pytest.approx(mask.mean(), abs=1e-6)
        box = boxes.get((row["id"], row["label"]))
        if box is not None:
            inside = mask[int(box["y0"]) : int(box["y1"]), int(box["x0"]) : int(box["x1"])]
            assert inside.sum() == mask.sum()


def test_dicom_says_what_it_is(folder):
    dataset = pydicom.dcmread(folder / "images/000/phantom7_000000.dcm")
    assert dataset.Modality == "DX"
    assert dataset.file_meta.MediaStorageSOPClassUID == dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.1.1"
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    assert dataset.PhotometricInterpretation == "MONOCHROME2"
    assert (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit) == (16, 12, 11)
    assert list(dataset.PatientOrientation) == ["L", "F"]
    assert dataset.ViewPosition == "PA"
    assert [float(mm) for mm in dataset.ImagerPixelSpacing] == pytest.approx([350 / 64] * 2, abs=1e-5)
    assert float(dataset.RescaleSlope) == 1
    assert float(dataset.WindowWidth) == 4096
    assert dataset.PatientID == "phantom7_000000"


def test_uids_are_all_different(folder):
    found = [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(folder.rglob("*.dcm"))]
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        assert len({getattr(dataset, name) for dataset in found}) == 60


def test_a_finished_folder_is_reused(folder):
    before = {name: (folder / name).stat().st_mtime_ns for name in _files(folder)}
    _make(folder, patients=60)
    assert {name: (folder / name).stat().st_mtime_ns for name in _files(folder)} == before


def test_another_phantom_is_refused(folder):
    with pytest.raises(ValueError, match=r"phantom.json.*image_size.*another folder"):
        _make(folder, patients=60, image_size=96)


def test_neither_number_of_patients_nor_of_processes_changes_a_patient(folder, tmp_path):
    _make(tmp_path, patients=9)
    for name in (name for name in _files(tmp_path) if name.startswith(("images/", "masks/"))):
        assert filecmp.cmp(tmp_path / name, folder / name, shallow=False)


def test_an_interrupted_phantom_is_completed(folder, tmp_path, monkeypatch):
    from monai_medclip.data import phantom as writer

    write = writer.write_case

    def breaks(where, spec, index, split):
        if index == 30:
            raise KeyboardInterrupt
        return write(where, spec, index, split)

    monkeypatch.setattr(writer, "write_case", breaks)
    with pytest.raises(KeyboardInterrupt):
        _make(tmp_path, patients=60)
    assert not (tmp_path / "manifest.csv").exists()
    first = tmp_path / "images/000/phantom7_000000.dcm"
    written = first.stat().st_mtime_ns
    monkeypatch.undo()
    _make(tmp_path, patients=60)
    assert first.stat().st_mtime_ns == written
    assert _files(tmp_path) == _files(folder)
    assert all(filecmp.cmp(tmp_path / name, folder / name, shallow=False) for name in _files(folder))


def test_monochrome1_is_the_same_picture_upside_down(tmp_path, folder):
    _make(tmp_path, patients=1, monochrome1=1.0)
    inverted = pydicom.dcmread(tmp_path / "images/000/phantom7_000000.dcm")
    plain = pydicom.dcmread(folder / "images/000/phantom7_000000.dcm")
    assert inverted.PhotometricInterpretation == "MONOCHROME1"
    assert inverted.PresentationLUTShape == "INVERSE"
    assert np.array_equal(4095 - inverted.pixel_array, plain.pixel_array)


def test_nifti_radiographs_hold_columns_then_rows(tmp_path):
    _make(tmp_path, patients=1, file_format="nifti")
    image = nibabel.load(tmp_path / "images/000/phantom7_000000.nii.gz")
    assert np.allclose(np.asarray(image.dataobj).T / 4095, PhantomPatient(7, 0).xray(64).image, atol=1e-3)
    assert image.header.get_zooms()[0] == pytest.approx(350 / 64, rel=1e-5)


def test_ct_series_and_nifti_are_the_same_volume(tmp_path):
    for file_format in ("dicom", "nifti"):
        _make(tmp_path / file_format, patients=2, image_size=32, modality="CT", file_format=file_format)
    ct = PhantomPatient(7, 1).ct((16, 32, 32))
    slices = [pydicom.dcmread(path) for path in sorted((tmp_path / "dicom/images/000/phantom7_000001").glob("*.dcm"))]
    volume = np.stack([s.pixel_array * float(s.RescaleSlope) + float(s.RescaleIntercept) for s in slices])
    assert np.abs(volume - np.clip(ct.volume, -1024, 3071)).max() <= 0.51
    heights = [float(s.ImagePositionPatient[2]) for s in slices]
    assert np.allclose(np.diff(heights), -ct.spacing_mm[0], atol=1e-4)  # head first
    image = nibabel.load(tmp_path / "nifti/images/000/phantom7_000001.nii.gz")
    assert np.abs(np.asarray(image.dataobj).T - ct.volume).max() <= 0.51
    x, y, z = image.affine @ [1, 2, 3, 1] @ np.eye(4)[:, :3]
    last = slices[3]
    column, row = (float(mm) for mm in last.PixelSpacing[::-1])
    corner = [float(mm) for mm in last.ImagePositionPatient]
    assert np.allclose([-x, -y, z], [corner[0] + column, corner[1] + 2 * row, corner[2]], atol=1e-3)
    masks = list(csv.DictReader((tmp_path / "nifti/masks.csv").open()))
    assert all((tmp_path / "nifti" / row["file"]).is_file() for row in masks)


def test_counterfactuals_are_the_same_patients_without_findings(tmp_path):
    items = read_manifest(_make(tmp_path, counterfactuals=True), findings=FINDING_NAMES)
    pairs = [item for item in items if item["counterfactual_of"]]
    assert len(pairs) == sum(bool(PhantomPatient(7, k).findings) for k in range(8))
    for item in pairs:
        assert item["label"] == [0.0] * 6
        assert item["labels"] == ["normal"]
        assert item["patient_id"] == item["counterfactual_of"]
    plain = read_manifest(tmp_path / "manifest.csv", where={"counterfactual_of": ""})
    assert len(plain) == 8


def test_splits_by_counts_and_their_errors(tmp_path):
    items = read_manifest(_make(tmp_path / "a", splits={"train": 5, "test": 3}))
    assert [item["split"] for item in items] == ["train"] * 5 + ["test"] * 3
    with pytest.raises(ValueError, match="add up to 1"):
        _make(tmp_path / "b", splits={"train": 5, "test": 4})
    with pytest.raises(ValueError, match="DX or CT"):
        _make(tmp_path / "b", modality="MR")
    assert not (tmp_path / "b").exists()


def test_no_leak_between_splits(folder):
    check_splits(read_manifest(folder / "manifest.csv"))


def test_phantom_json_states_everything(folder):
    spec = json.loads((folder / "phantom.json").read_text())
    assert spec["seed"] == 7
    assert spec["splits"] == {"train": 42, "val": 6, "test": 12}
    assert spec["version"] >= 1


def test_a_ct_may_have_any_number_of_slices(tmp_path):
    manifest = _make(tmp_path / "ct", patients=2, image_size=32, slices=28, modality="CT", file_format="nifti")
    first, second = read_manifest(manifest)
    volume = nibabel.load(first["image"])
    assert volume.shape == (32, 32, 28)
    np.testing.assert_allclose(volume.header.get_zooms()[2], 330 / 28, rtol=1e-5)
    np.testing.assert_array_equal(
        np.asarray(volume.dataobj), np.rint(PhantomPatient(7, 0).ct((28, 32, 32)).volume).astype(np.int16).T
    )
    assert first["study_id"] != second["study_id"]
    for wrong in ({"modality": "DX", "slices": 28}, {"modality": "CT", "slices": 8}):
        with pytest.raises(ValueError, match="only a CT has slices"):
            _make(tmp_path / "wrong", **wrong)


def test_a_phantom_from_before_slices_could_be_chosen_is_reused(tmp_path):
    manifest = _make(tmp_path, patients=2)
    note = tmp_path / "phantom.json"
    spec = json.loads(note.read_text())
    del spec["slices"]
    note.write_text(json.dumps(spec))
    assert _make(tmp_path, patients=2) == manifest


def test_an_image_is_drawn_alone_with_or_without_a_finding(tmp_path, folder):
    spec = json.loads((folder / "phantom.json").read_text())
    index = next(k for k in range(60) if PhantomPatient(7, k).findings)
    finding = PhantomPatient(7, index).findings[0].finding
    (known,) = (item for item in read_manifest(folder / "manifest.csv") if item["id"].endswith(f"_{index:06d}"))
    alone = write_image(tmp_path / "with", spec, index)
    assert alone.read_bytes() == Path(known["image"]).read_bytes()
    assert write_image(tmp_path / "without", spec, index, (finding,)).read_bytes() != alone.read_bytes()
