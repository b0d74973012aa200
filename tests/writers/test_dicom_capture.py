"""Secondary Captures show image, heat, score and notice in one legible picture."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest

from monai_medclip.writers import dicom_results, dicom_source, write_dicom_results
from monai_medclip.writers.dicom_capture import capture_figure, source_picture
from monai_medclip.writers.dicom_grid import values_on_slices

from .dicom_sources import SAYS, own_map, write_ct, write_film, write_source
from .drawn import cut_texts, pictures, words

pytest.importorskip("highdicom")
ONE = ("capture",)


def figure_of(path, maps, says=SAYS):
    source = dicom_source(path)
    values = values_on_slices(source, maps)[0]
    return capture_figure(source_picture(source), values, says.answers[0], says)


def hottest_only(maps):
    """A map that is zero but at its last pixel, in the corner of the last row, column and slice."""
    hot = maps * 0
    hot[(0, *(-1,) * (maps.ndim - 1))] = 2.0
    return hot


@pytest.mark.parametrize("kind", ["film", "oblique"])
def test_a_picture_says_what_it_shows(tmp_path, kind):
    path = write_source(tmp_path, kind)
    figure = figure_of(path, own_map(path))
    said = words(figure)
    for part in ("left pleural effusion", "probability 0.83", "1.6 logit", "recommended", "phantom CLIP 0123456789ab"):
        assert part in said
    assert "NOT FOR CLINICAL USE" in said
    assert ("CT from -1000 to 400 HU" in said) == (kind != "film")
    assert cut_texts(figure) == []


def test_heat_lies_over_its_pixel_of_an_upright_film(tmp_path):
    path = write_film(tmp_path, PatientOrientation=["R", "H"])  # stored upside down and mirrored
    _, tinted, *_ = pictures(figure_of(path, hottest_only(own_map(path))))
    colored = np.ptp(tinted, axis=2) > 0.05
    assert np.argwhere(colored).tolist() == [[0, 0]]


def test_a_ct_is_cut_through_its_peak(tmp_path):
    path = write_ct(tmp_path / "ct")
    figure = figure_of(path, hottest_only(own_map(path)))
    assert "axial, slice 3" in words(figure)
    axial = pictures(figure)[0]
    assert np.argwhere(np.ptp(axial, axis=2) > 0.05).tolist() == [[5, 7]]


def test_a_single_slice_is_shown_as_a_picture(tmp_path):
    write_ct(tmp_path / "ct")
    path = str(tmp_path / "ct" / "2.dcm")
    figure = figure_of(path, own_map(path))
    assert [one.shape for one in pictures(figure)[:2]] == [(6, 8, 3)] * 2


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_bone_is_bright_whatever_the_source_stores(tmp_path, photometric):
    path = write_film(tmp_path, PhotometricInterpretation=photometric)
    picture = source_picture(dicom_source(path))
    first, last = float(picture[0, 0, 0]), float(picture[0, -1, -1])
    assert (first > last) == (photometric == "MONOCHROME1")


def test_a_capture_is_written_and_read(tmp_path):
    path = write_source(tmp_path, "film")
    (file,) = write_dicom_results(tmp_path / "out", path, own_map(path), SAYS, kinds=ONE)
    read = pydicom.dcmread(file)
    pixels = read.pixel_array
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert min(pixels.shape[:2]) >= 500
    assert (read.PhotometricInterpretation, read.BurnedInAnnotation, read.ConversionType) == ("RGB", "YES", "WSD")
    assert read.SeriesDescription == "MedCLIP picture: left pleural effusion p=0.83 (recommended)"
    (reference,) = read.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == pydicom.dcmread(path).SOPInstanceUID


def test_what_was_made_from_a_lossy_image_says_so(tmp_path):
    lossy = {"LossyImageCompression": "01", "LossyImageCompressionRatio": "10"}
    path = write_film(tmp_path, **lossy, LossyImageCompressionMethod="ISO_15444_1")
    for dataset in dicom_results(path, own_map(path), SAYS, kinds=("capture", "parametric_map", "segmentation")):
        assert dataset.LossyImageCompression == "01"
        assert dataset.LossyImageCompressionMethod == "ISO_15444_1"
