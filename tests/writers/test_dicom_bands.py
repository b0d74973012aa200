"""Heat bands: equal steps of a map's maximum, and a Segmentation that holds them where the map does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from monai_medclip.writers import dicom_results, heat_band_names, heat_bands, write_dicom_results
from monai_medclip.writers.maps import ras_affine

from .dicom_sources import SAYS, SOURCES, own_map, pixels_of, write_source
from .test_dicom_map import read_sources

SEGMENTATION = ("segmentation",)


def test_bands_begin_at_the_threshold_and_end_at_the_maximum():
    values = np.array([-8, 0, 1.9, 2, 3.9, 4, 5.9, 6, 8])
    assert heat_bands(values).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert heat_bands(values, 0.7).tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 3]
    assert heat_bands(values, 0.0).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 3]
    assert heat_band_names() == ("heat 25-50%", "heat 50-75%", "heat 75-100%")
    assert heat_band_names(0.7) == ("heat 70-80%", "heat 80-90%", "heat 90-100%")


@pytest.mark.parametrize("values", [np.zeros((2, 3)), -np.ones((2, 3))])
def test_what_has_no_heat_has_no_band(values):
    bands = heat_bands(values, 0.0)
    assert (bands.dtype, bands.shape, bands.any()) == (np.uint8, (2, 3), False)


@pytest.mark.parametrize("threshold", [-0.1, 1.0])
def test_a_threshold_is_a_share(threshold):
    with pytest.raises(ValueError, match=f"threshold={threshold}"):
        heat_bands(np.ones(3), threshold)


@pytest.mark.parametrize("kind", SOURCES)
def test_segments_lie_where_the_map_has_their_share(tmp_path, kind):
    pytest.importorskip("highdicom")
    path = write_source(tmp_path, kind)
    sources = read_sources(path)
    offset = 0.0 if kind == "film" else 10.24  # HU from -1000: heat from 0.24
    maps = own_map(path, offset=offset)
    (file,) = write_dicom_results(tmp_path / "out", path, maps, SAYS, kinds=SEGMENTATION)
    read = pydicom.dcmread(file)
    assert read.SegmentationType == "BINARY"
    frames = read.pixel_array.reshape(-1, read.Rows, read.Columns)
    highest, seen = float(maps.max()), 0
    for frame, mask in zip(read.PerFrameFunctionalGroupsSequence, frames, strict=True):
        number = int(frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        (reference,) = frame.DerivationImageSequence[0].SourceImageSequence
        share = (0.01 * pixels_of(sources, reference) + offset) / highest
        low = 0.25 * number
        expected = (share >= low) & ((share < low + 0.25) | (number == 3))
        far_from_edges = np.abs(share % 0.25 - 0.125) < 0.12  # float32 rounds what lies on an edge
        np.testing.assert_array_equal(mask[far_from_edges], expected[far_from_edges])
        seen += int(mask.sum())
    assert seen == int((heat_bands(maps.numpy()) > 0).sum())


def test_segments_say_what_made_them_and_have_the_overlay_s_colors(tmp_path):
    pytest.importorskip("highdicom")
    path = write_source(tmp_path, "axial")
    (dataset,) = dicom_results(path, own_map(path, offset=10.24), SAYS, kinds=SEGMENTATION)
    segments = dataset.SegmentSequence
    assert [one.SegmentLabel for one in segments] == list(heat_band_names())
    lightness = [one.RecommendedDisplayCIELabValue[0] for one in segments]
    assert lightness == sorted(lightness)  # plasma grows lighter with heat
    assert all(0 <= one <= 65535 for segment in segments for one in segment.RecommendedDisplayCIELabValue)
    (algorithm,) = segments[0].SegmentationAlgorithmIdentificationSequence
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("phantom CLIP", "0123456789ab")
    assert algorithm.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"


def test_a_map_without_heat_has_three_empty_segments(tmp_path):
    pytest.importorskip("highdicom")
    path = write_source(tmp_path, "axial")
    (file,) = write_dicom_results(tmp_path / "out", path, own_map(path, scale=0.0), SAYS, kinds=SEGMENTATION)
    read = pydicom.dcmread(file)
    assert len(read.SegmentSequence) == 3
    assert not read.pixel_array.any()


def test_dcmqi_reads_the_same_bands(tmp_path):
    pytest.importorskip("highdicom")
    program = Path(sys.executable).with_name("segimage2itkimage")
    if not program.is_file():
        pytest.skip("no segimage2itkimage beside this Python: pip install dcmqi")
    path = write_source(tmp_path, "oblique")
    maps = own_map(path, offset=10.24)
    (file,) = write_dicom_results(tmp_path / "out", path, maps, SAYS, kinds=SEGMENTATION)
    command = [program, "--inputDICOM", file, "--outputDirectory", tmp_path, "-t", "nifti"]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    bands = heat_bands(maps[0].numpy())
    for written in tmp_path.glob("*.nii.gz"):
        image = nib.load(written)
        values = np.asarray(image.dataobj)
        (number,) = set(np.unique(values).tolist()) - {0}
        voxels = np.argwhere(values)
        world = nib.affines.apply_affine(image.affine, voxels)
        ours = nib.affines.apply_affine(np.linalg.inv(ras_affine(maps)), world).round().astype(int)
        assert sorted(map(tuple, ours)) == sorted(map(tuple, np.argwhere(bands == number)))
    assert len(list(tmp_path.glob("*.nii.gz"))) == 3
