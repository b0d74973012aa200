"""Studies in Orthanc, asked for by DICOMweb: inference, results stored by STOW-RS, found by QIDO-RS and opened."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest

pytest.importorskip("monailabel", reason="pip install 'monai-medclip[label]', or run .ci/e2e")

import SimpleITK as sitk  # noqa: N813 - its usual name
from monailabel.client import MONAILabelClient
from pydicom import Dataset

from monai_medclip.engines import BundleModel
from monai_medclip.writers import DICOM_KINDS

from .cases import Case, Seen
from .conftest import Site, Stored, run_folder
from .requests_to import bands, float_map, infer
from .servers import Archive, server_path

LABELS = [{"name": f"heat {low}-{low + 25}%", "model_name": "MedCLIP"} for low in (25, 50, 75)]


def series_of(case: Case) -> str:
    return str(case.header.SeriesInstanceUID)


def raw_values(parametric_map: Dataset) -> np.ndarray:
    """Real world values of a Parametric Map: (frames, rows, columns)."""
    values = np.frombuffer(parametric_map.FloatPixelData, np.float32)
    shared = parametric_map.SharedFunctionalGroupsSequence[0]
    mapping = shared.RealWorldValueMappingSequence[0]
    shape = (int(parametric_map.NumberOfFrames), parametric_map.Rows, parametric_map.Columns)
    return values.reshape(shape) * mapping.RealWorldValueSlope + mapping.RealWorldValueIntercept


def referred_to(dataset: Dataset) -> set[str]:
    """All SOP Instance UIDs that an object names as others'."""
    return {str(element.value) for element in dataset.iterall() if element.keyword == "ReferencedSOPInstanceUID"}


def test_the_server_lists_the_series_of_its_modality(
    archive_sites: dict[str, Site], phantoms: dict[str, list[Case]], modality: str
) -> None:
    listed = MONAILabelClient(archive_sites[modality].server.url).datastore()["objects"]
    assert set(listed) <= {series_of(case) for case in phantoms[modality]}
    client = MONAILabelClient(archive_sites[modality].server.url)
    assert client.next_sample("most_uncertain", {})["id"] in {series_of(case) for case in phantoms[modality]}


def test_the_archive_gives_the_map_that_the_file_gives(
    archive_sites: dict[str, Site], modality: str, seen: dict[str, list[Seen]]
) -> None:
    case, model = seen[modality][1].case, BundleModel.open(run_folder(modality))
    from_web = sitk.GetArrayFromImage(float_map(archive_sites[modality].server, series_of(case), case.finding))
    maps = model.scanner(model.heatmaps(model.study(case.image), [case.finding]).maps)
    from_file = maps.as_tensor()[0].numpy().T.reshape(from_web.shape)  # (x, y[, z]) -> (z, y, x)
    np.testing.assert_allclose(from_web, from_file, atol=1e-4 * from_file.max())


def test_stored_objects_are_found_and_belong_to_the_study(
    archive: Archive, stored: dict[str, Stored], modality: str
) -> None:
    result, source = stored[modality], stored[modality].seen.case.header
    found = archive.search("series", StudyInstanceUID=str(source.StudyInstanceUID))
    series = {one.Modality: one for one in found}
    assert set(series) == {modality, "OT", "SEG", "SR"}
    assert len(found) == 5  # the Parametric Map's modality is OT too
    assert set(result.objects) == set(DICOM_KINDS)
    names = [one.SeriesDescription for one in found if one.Modality != modality]
    assert all("MedCLIP" in name and f"p={result.params['probability']:.2f}" in name for name in names)
    for one in result.objects.values():
        assert one.PatientID == source.PatientID
        assert one.PatientName == source.PatientName
        assert one.StudyInstanceUID == source.StudyInstanceUID
        assert one.SeriesInstanceUID != source.SeriesInstanceUID
        assert referred_to(one)


def test_stored_maps_hold_the_values_that_clients_get(
    archive_sites: dict[str, Site], stored: dict[str, Stored], modality: str
) -> None:
    case, parametric_map = stored[modality].seen.case, stored[modality].objects["parametric_map"]
    image = float_map(archive_sites[modality].server, series_of(case), case.finding)
    client, archived = sitk.GetArrayFromImage(image), raw_values(parametric_map)
    assert archived.shape == client.shape
    for number, frame in enumerate(archived):
        index = [0, 0, number]
        if modality == "CT":  # a film has no place in the patient
            place = parametric_map.PerFrameFunctionalGroupsSequence[number].PlanePositionSequence[0]
            index = image.TransformPhysicalPointToIndex([float(mm) for mm in place.ImagePositionPatient])
        assert tuple(index[:2]) == (0, 0)
        np.testing.assert_allclose(frame, client[index[2]], atol=1e-5 * client.max())


def test_the_segmentation_holds_the_bands(
    archive_sites: dict[str, Site], stored: dict[str, Stored], modality: str
) -> None:
    case, segmentation = stored[modality].seen.case, stored[modality].objects["segmentation"]
    shown = sitk.GetArrayFromImage(bands(archive_sites[modality].server, series_of(case), case.finding))
    assert [segment.SegmentLabel for segment in segmentation.SegmentSequence] == [label["name"] for label in LABELS]
    counts = np.zeros(4, int)
    frames = segmentation.pixel_array.reshape(-1, *shown.shape[1:])
    for frame, group in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        counts[group.SegmentIdentificationSequence[0].ReferencedSegmentNumber] += int(frame.astype(bool).sum())
    np.testing.assert_array_equal(counts[1:], [(shown == band).sum() for band in (1, 2, 3)])


def test_the_report_refers_to_the_image_and_to_the_results(stored: dict[str, Stored], modality: str) -> None:
    objects, case = stored[modality].objects, stored[modality].seen.case
    images = {str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in case.files}
    named = referred_to(objects["report"])
    assert {str(objects["parametric_map"].SOPInstanceUID), str(objects["capture"].SOPInstanceUID)} <= named
    assert named & images
    text = str(objects["report"])
    assert case.finding in text
    assert stored[modality].params["model_version"] in text


def test_what_is_stored_again_replaces_itself(
    archive: Archive, archive_sites: dict[str, Site], stored: dict[str, Stored], modality: str
) -> None:
    result, case = stored[modality], stored[modality].seen.case
    study = str(case.header.StudyInstanceUID)
    before = {one.SOPInstanceUID for one in archive.search("instances", StudyInstanceUID=study)}
    asked = {"prompt": case.finding, "archive": "store with segmentation"}
    again = infer(archive_sites[modality].server, "heatmap", series_of(case), output="json", **asked).json()
    assert set(again["stored"]) == {str(one.SOPInstanceUID) for one in result.objects.values()}
    assert {one.SOPInstanceUID for one in archive.search("instances", StudyInstanceUID=study)} == before


def test_no_object_has_an_error(stored: dict[str, Stored], modality: str, tmp_path: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("no dciodvfy: apt-get install dicom3tools")
    for kind, one in stored[modality].objects.items():
        one.save_as(tmp_path / f"{kind}.dcm")
        checked = subprocess.run(["dciodvfy", tmp_path / f"{kind}.dcm"], capture_output=True, text=True, check=False)
        said = (checked.stdout + checked.stderr).splitlines()
        assert not [line for line in said if line.startswith("Error")], kind


def test_a_dicom_segmentation_of_a_volume_can_be_asked_for(
    archive_sites: dict[str, Site], seen: dict[str, list[Seen]]
) -> None:
    server, case = archive_sites["CT"].server, seen["CT"][1].case
    if shutil.which("itkimage2segimage", path=server_path()) is None:
        pytest.skip("no itkimage2segimage: pip install dcmqi")
    asked = {"prompt": case.finding, "label_info": LABELS}
    answer = infer(server, "heatmap", series_of(case), output="dicom_seg", **asked)
    assert answer.ok, answer.text
    segmentation = pydicom.dcmread(io.BytesIO(answer.content))
    assert segmentation.Modality == "SEG"
    assert segmentation.StudyInstanceUID == case.header.StudyInstanceUID
    assert segmentation.pixel_array.any()


def test_a_server_of_the_archive_tells_no_names(
    archive_sites: dict[str, Site], stored: dict[str, Stored], modality: str
) -> None:
    printed, header = archive_sites[modality].server.printed(), stored[modality].seen.case.header
    for told in (header.PatientID, header.PatientName, header.SeriesInstanceUID, header.StudyInstanceUID):
        assert str(told) not in printed
