"""Parametric Maps hold each value at the pixel of the slice that it belongs to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from monai.transforms import Flip

from monai_medclip.writers import dicom_results, write_dicom_results
from monai_medclip.writers.maps import ras_affine

from .dicom_sources import FRAME_OF_REFERENCE, PATIENT, SAYS, SOURCES, own_map, pixels_of, write_film, write_source

pytest.importorskip("highdicom")
ONE = ("parametric_map",)


def values_of(dataset) -> np.ndarray:
    """Real world values of the frames (frames, rows, columns)."""
    (mapping,) = dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    stored = np.frombuffer(dataset.FloatPixelData, "<f4").reshape(-1, dataset.Rows, dataset.Columns)
    return stored * mapping.RealWorldValueSlope + mapping.RealWorldValueIntercept


def read_sources(path: str) -> dict[str, pydicom.Dataset]:
    files = [path] if Path(path).is_file() else sorted(Path(path).glob("*.dcm"))
    return {one.SOPInstanceUID: one for one in map(pydicom.dcmread, files)}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_value_lies_on_the_pixel_it_was_computed_for(tmp_path, kind):
    path = write_source(tmp_path, kind)
    sources = read_sources(path)
    (file,) = write_dicom_results(tmp_path / "out", path, own_map(path), SAYS, kinds=ONE)
    read = pydicom.dcmread(file)
    assert read.NumberOfFrames == (1 if kind == "film" else 4)
    for frame, values in zip(read.PerFrameFunctionalGroupsSequence, values_of(read), strict=True):
        (reference,) = frame.DerivationImageSequence[0].SourceImageSequence
        np.testing.assert_allclose(values, 0.01 * pixels_of(sources, reference), rtol=1e-6)
        source = sources[reference.ReferencedSOPInstanceUID]
        if "ImagePositionPatient" in source:
            place = frame.PlanePositionSequence[0].ImagePositionPatient
            np.testing.assert_allclose(place, source.ImagePositionPatient, atol=1e-6)


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1, 2)])
def test_a_reader_that_runs_the_other_way_writes_the_same_map(tmp_path, axes):
    path = write_source(tmp_path, "oblique")
    maps = own_map(path)
    (straight,) = dicom_results(path, maps, SAYS, kinds=ONE)
    turned = Flip(axes)(maps)
    assert not np.allclose(ras_affine(turned), ras_affine(maps))
    (again,) = dicom_results(path, turned, SAYS, kinds=ONE)
    assert again.FloatPixelData == straight.FloatPixelData


def test_the_header_is_that_of_the_study(tmp_path):
    path = write_source(tmp_path, "axial")
    maps = own_map(path, offset=20.0)
    (file,) = write_dicom_results(tmp_path / "out", path, maps, SAYS, kinds=ONE)
    read = pydicom.dcmread(file)
    for tag, value in PATIENT.items():
        if tag not in ("SpecificCharacterSet", "BodyPartExamined"):
            assert str(read[tag].value) == value, tag
    assert read.FrameOfReferenceUID == FRAME_OF_REFERENCE
    assert read.SeriesDescription == "MedCLIP heatmap: left pleural effusion p=0.83 (recommended)"
    assert (read.ContentLabel, read.ContentQualification) == ("HEATMAP", "RESEARCH")
    (mapping,) = read.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    highest = float(maps.max())
    assert (mapping.LUTLabel, mapping.RealWorldValueIntercept) == ("logit", 0)
    assert mapping.RealWorldValueSlope == pytest.approx(highest)
    assert mapping.MeasurementUnitsCodeSequence[0].CodingSchemeDesignator == "UCUM"
    assert mapping.DoubleFloatRealWorldValueLastValueMapped == 1  # of what is stored, which OHIF shows from 0 to 1
    assert values_of(read).max() == pytest.approx(highest)
    (equipment,) = read.ContributingEquipmentSequence
    assert (equipment.ManufacturerModelName, equipment.DeviceSerialNumber) == ("phantom CLIP", "0123456789ab")
    assert "Research use only" in equipment.ContributionDescription


def test_the_window_shows_heat_from_zero_to_its_maximum(tmp_path):
    path = write_source(tmp_path, "film")
    (dataset,) = dicom_results(path, own_map(path, scale=1e-3, offset=-0.1), SAYS, kinds=ONE)
    (window,) = dataset.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence
    assert float(window.WindowCenter) == pytest.approx(0.5)  # of shares of the maximum
    assert float(window.WindowWidth) == pytest.approx(1)
    assert window.VOILUTFunction == "LINEAR_EXACT"  # narrower than 1: LINEAR would turn it upside down


def test_a_map_without_heat_is_written_as_it_is(tmp_path):
    path = write_source(tmp_path, "axial")
    (dataset,) = dicom_results(path, own_map(path, scale=0.0), SAYS, kinds=ONE)
    assert not values_of(dataset).any()


def test_a_film_gets_a_nominal_place_and_its_file_stays_as_it_is(tmp_path):
    path = write_film(tmp_path, PixelSpacing=[0, 0], ImagerPixelSpacing=[0.2, 0.1])
    before = Path(path).read_bytes()
    (dataset,) = dicom_results(path, own_map(path), SAYS, kinds=ONE)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == [0.2, 0.1]
    assert list(shared.PlaneOrientationSequence[0].ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]
    assert list(dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient) == [0, 0, 0]
    assert dataset.FrameOfReferenceUID
    assert Path(path).read_bytes() == before


def test_dcmqi_reads_the_same_volume(tmp_path):
    program = Path(sys.executable).with_name("paramap2itkimage")
    if not program.is_file():
        pytest.skip("no paramap2itkimage beside this Python: pip install dcmqi")
    path = write_source(tmp_path, "oblique")
    maps = own_map(path)
    (file,) = write_dicom_results(tmp_path / "out", path, maps, SAYS, kinds=ONE)
    command = [program, "--inputDICOM", file, "--outputDirectory", tmp_path, "-t", "nifti"]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    (written,) = tmp_path.glob("*.nii.gz")
    image = nib.load(written)
    np.testing.assert_allclose(image.affine, ras_affine(maps), atol=1e-4)
    np.testing.assert_allclose(np.asarray(image.dataobj), maps[0].numpy(), rtol=1e-6)
