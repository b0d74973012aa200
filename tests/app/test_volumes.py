"""Files for viewers: an independent reader places every voxel where the affine says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from monai.data.utils import orientation_ras_lps

nrrd = pytest.importorskip("nrrd", reason="needs the label extra")
sitk = pytest.importorskip("SimpleITK", reason="needs SimpleITK")

from monai_medclip.app.volumes import write_nrrd, write_segments  # noqa: E402

TURN = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])


def oblique() -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = TURN @ np.diag([-0.7, -0.9, 2.5])
    affine[:3, 3] = [11.0, -22.0, 33.0]
    return affine


def test_itk_reads_values_and_places_back(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    image = sitk.ReadImage(str(write_nrrd(tmp_path / "map.nrrd", values, oblique())))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).transpose(2, 1, 0), values)
    lps = orientation_ras_lps(oblique()) @ [2, 3, 4, 1]
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((2, 3, 4)), lps[:3], atol=1e-6)


def test_a_film_is_one_slice_thick(tmp_path: Path) -> None:
    film = np.diag([-0.2, 0.3, 0.0, 1.0])
    image = sitk.ReadImage(str(write_nrrd(tmp_path / "film.nrrd", np.ones((6, 4, 1), np.uint8), film)))
    assert image.GetSize() == (6, 4, 1)
    np.testing.assert_allclose(image.GetSpacing(), (0.2, 0.3, 1.0))


def test_a_tilted_gantry_s_shear_is_kept(tmp_path: Path) -> None:
    sheared = oblique()
    sheared[:3, 2] += 0.4 * sheared[:3, 1]
    header = nrrd.read_header(str(write_nrrd(tmp_path / "tilt.nrrd", np.zeros((2, 2, 2), np.uint8), sheared)))
    np.testing.assert_allclose(header["space directions"].T, orientation_ras_lps(sheared)[:3, :3])


def test_several_maps_become_one_file_of_vectors(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=(2, 3, 4, 5)).astype(np.float32)
    image = sitk.ReadImage(str(write_nrrd(tmp_path / "maps.nrrd", values, oblique())))
    assert image.GetNumberOfComponentsPerPixel() == 2
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).transpose(3, 2, 1, 0), values)


def test_segments_carry_names_and_colors(tmp_path: Path) -> None:
    labels = np.zeros((3, 3, 3), np.uint8)
    labels[1, 1, 1] = 2
    path = write_segments(tmp_path / "bands.seg.nrrd", labels, oblique(), ["low", "high"], [(1, 0, 0), (0, 0.5, 1)])
    data, header = nrrd.read(str(path))
    np.testing.assert_array_equal(data, labels)
    assert header["Segment1_Name"] == "high"
    assert header["Segment1_Color"] == "0.000000 0.500000 1.000000"
    assert header["Segment1_LabelValue"] == "2"
