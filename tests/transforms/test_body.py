"""The patient without the table: on any grid, whatever the padding; and no patient where there is none."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import MaskIntensityd

from monai_medclip.transforms import BadInputError, BodyMaskd, body_mask, padding_mask
from monai_medclip.transforms.body import coarsen

from .make_chest import dice, make_chest


@pytest.mark.parametrize(
    ("axes", "tilt_deg", "spacing"),
    [("LPS", 0, (2, 2, 4)), ("SPL", 0, (2, 2, 4)), ("AIR", 12, (3, 2, 5)), ("LPS", 20, (1.5, 1.5, 5))],
)
def test_the_patient_is_found_without_the_table_on_any_grid(axes, tilt_deg, spacing):
    chest = make_chest(axes=axes, tilt_deg=tilt_deg, spacing=spacing)
    mask = BodyMaskd("image")({"image": chest.hu})["body"]
    assert mask.shape == chest.hu.shape
    assert torch.equal(mask.affine, chest.hu.affine)
    assert dice(mask[0], chest.body) > 0.985
    assert mask[0].numpy()[chest.lungs].mean() == 1.0
    table = (chest.hu[0].numpy() > 120) & ~chest.body
    assert table.sum() > 500
    assert mask[0].numpy()[table].mean() < 0.2  # only where the patient lies on it


@pytest.mark.parametrize("filler", [-2000.0, -3024.0, -32768.0, -1555.0])
def test_padding_is_told_from_air_and_does_not_change_the_mask(filler):
    chest = make_chest()
    hu = chest.hu[0].numpy().copy()
    x, y = np.meshgrid(*(np.linspace(-1, 1, n) for n in hu.shape[:2]), indexing="ij")
    outside = np.broadcast_to((x**2 + y**2 > 1.2)[..., None], hu.shape)
    plain = body_mask(hu, (2, 2, 4))
    assert not padding_mask(hu).any()
    hu[outside] = filler
    np.testing.assert_array_equal(padding_mask(hu), outside)
    np.testing.assert_array_equal(body_mask(hu, (2, 2, 4)), plain)


def test_the_files_own_padding_value_counts_too():
    values = np.array([-1000.0, 0, 40, 0, -1024])
    assert not padding_mask(values).any()
    assert padding_mask(values, padding_hu=0).tolist() == [False, True, False, True, False]
    assert padding_mask(np.array([-2000.0, -3024, -1000])).tolist() == [True, True, False]


def test_heat_stays_inside_the_patient():
    chest = make_chest()
    item = BodyMaskd("image")({"image": chest.hu, "heat": MetaTensor(torch.ones(1, *chest.body.shape))})
    heat = MaskIntensityd("heat", mask_key="body")(item)["heat"]
    assert heat.sum() == item["body"].sum()
    assert heat[0].numpy()[~chest.body].mean() < 0.02


def test_a_coarse_grid_averages_blocks_and_finds_its_way_back():
    volume = np.arange(5 * 4 * 3, dtype=float).reshape(5, 4, 3)
    grid = coarsen(volume, (0.7, 0.8, 3.0))
    assert (grid.steps, grid.spacing_mm, grid.hu.shape) == ((2, 2, 1), (1.4, 1.6, 3.0), (3, 2, 3))
    assert grid.hu[0, 0, 0] == volume[:2, :2, 0].mean()
    assert grid.hu[2, 1, 2] == volume[4:, 2:, 2].mean()  # the half block at the edge averages what it has
    fine = grid.refine(grid.hu)
    assert fine.shape == volume.shape
    assert np.unique(fine[2:4, 2:4, 1]).tolist() == [grid.hu[1, 1, 1]]


def test_where_there_is_no_patient_none_is_guessed(shared_data):
    file = shared_data / "ct_lidc_voi" / "image" / "LIDC-IDRI-0003_R_2.nii.gz"
    image = nib.load(file)
    with pytest.raises(BadInputError, match=r"0003_R_2.*no body found.*% of the voxels.*whole chest CT"):
        body_mask(image.get_fdata(), image.header.get_zooms(), file=file)


def test_air_alone_is_no_patient_and_wrong_arguments_are_named():
    with pytest.raises(BadInputError, match=r"scan-7.*no body found: 0% of the voxels"):
        BodyMaskd("image")({"image": MetaTensor(torch.full((1, 20, 20, 20), -1000.0)), "id": "scan-7"})
    with pytest.raises(ValueError, match=r"spacing_mm is \(1, 0, 1\)"):
        body_mask(np.zeros((4, 4, 4)), (1, 0, 1))
    with pytest.raises(ValueError, match="mask_keys"):
        BodyMaskd(["a", "b"], "body")
    with pytest.raises(ValueError, match=r"one volume \(1, x, y, z\)"):
        BodyMaskd("image")({"image": MetaTensor(torch.zeros(3, 4, 4, 4))})
