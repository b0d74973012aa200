"""A map that does not lie on the source's pixels is refused, and never written beside them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation, Spacing

from monai_medclip.writers import dicom_source
from monai_medclip.writers.dicom_grid import values_on_slices

from ..transforms.make_ct import ramp
from .dicom_sources import own_map, write_ct, write_film


@pytest.fixture
def ct(tmp_path):
    return write_ct(tmp_path / "ct")


def test_values_are_in_the_order_of_frames_rows_and_columns(ct):
    values = values_on_slices(dicom_source(ct), own_map(ct))
    assert [(one.dtype, one.shape) for one in values] == [(np.float32, (4, 6, 8))]
    np.testing.assert_allclose(values[0], 0.01 * (ramp() - 1024), rtol=1e-6)


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SAR"])
def test_any_order_of_axes_is_brought_back(ct, codes):
    maps = Orientation(axcodes=codes)(own_map(ct))
    values = values_on_slices(dicom_source(ct), maps)
    np.testing.assert_allclose(values[0], 0.01 * (ramp() - 1024), rtol=1e-6)


def test_a_film_s_third_axis_is_dropped(tmp_path):
    path = write_film(tmp_path)
    maps = own_map(path)
    flat = values_on_slices(dicom_source(path), maps)
    np.testing.assert_array_equal(values_on_slices(dicom_source(path), maps[..., None]), flat)
    assert flat[0].shape == (1, 24, 32)


def moved(maps: MetaTensor, column: int, by: float) -> MetaTensor:
    affine = maps.affine.clone()
    affine[0, column] += by
    return MetaTensor(maps.as_tensor(), affine=affine)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda maps: moved(maps, 3, 0.25),  # one column beside
        lambda maps: moved(maps, 0, 0.01),  # wider pixels
        lambda maps: moved(maps, 1, 0.5),  # sheared
        lambda maps: maps[:, 1:],
        lambda maps: maps[:, :, :, :3],
        lambda maps: Spacing((1.0, 1.0, 2.5))(maps),
        lambda maps: MetaTensor(maps.as_tensor()),  # the affine is lost
    ],
)
def test_another_grid_is_refused(ct, wrong):
    with pytest.raises(ValueError, match="bring them back with scanner_maps"):
        values_on_slices(dicom_source(ct), wrong(own_map(ct)))


def test_a_film_of_another_spacing_is_refused(tmp_path):
    maps = own_map(write_film(tmp_path / "a"))
    other = dicom_source(write_film(tmp_path / "b", PixelSpacing=[0.25, 0.25]))
    with pytest.raises(ValueError, match="bring them back with scanner_maps"):
        values_on_slices(other, maps)


def test_rounding_of_an_affine_is_no_other_grid(ct):
    maps = own_map(ct)
    values_on_slices(dicom_source(ct), MetaTensor(maps.as_tensor(), affine=maps.affine.float() + 1e-5))


def test_what_cannot_be_placed_or_written_is_refused(ct):
    source, maps = dicom_source(ct), own_map(ct)
    with pytest.raises(TypeError, match="a plain tensor has no affine"):
        values_on_slices(source, maps.as_tensor())
    with pytest.raises(ValueError, match=r"not \(F, x, y"):
        values_on_slices(source, maps[None])
    maps[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        values_on_slices(source, maps)
