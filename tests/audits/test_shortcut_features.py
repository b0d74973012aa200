"""Every input reads what it says, and nothing else."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Identityd
from PIL import Image

from monai_medclip.audits.pixels import GRID
from monai_medclip.audits.shortcut_features import ShortcutInput, inside_profile, shortcut_inputs
from monai_medclip.transforms import CheckedDataset

from .shortcut_cases import dataset


def bare(item: dict[str, Any], truth: bool, rng: np.random.Generator) -> None:
    """Nothing but noise and a label."""


def inputs_of(write: Any = bare, **arguments: Any) -> dict[str, ShortcutInput]:
    parts = [dataset(write, seed=seed, count=8) for seed in (0, 1)]
    return {one.name: one for one in shortcut_inputs(*parts, **arguments)}


def test_images_without_anything_beside_them_have_their_pixels_alone() -> None:
    found = inputs_of()
    assert list(found) == ["24 x 24 pixels", "intensity statistics", "intensity histogram"]
    assert found["24 x 24 pixels"].train.shape == (8, GRID * GRID)
    assert found["intensity histogram"].test.sum(axis=1) == pytest.approx(np.ones(8), abs=1e-5)
    assert all(np.isfinite(one.train).all() and np.isfinite(one.test).all() for one in found.values())


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("value", [0.0, 1000.0])
def test_padding_is_found_at_the_ends_of_each_axis_whatever_its_value(spatial_dims: int, value: float) -> None:
    image = np.random.default_rng(0).random((2, *[12] * spatial_dims))
    assert (inside_profile(image) == 1).all()
    width = [(0, 0), (12, 0), *[(6, 6)] * (spatial_dims - 1)]
    first, *others = inside_profile(np.pad(image, width, constant_values=value)).reshape(spatial_dims, GRID)
    assert first.tolist() == [0] * 12 + [1] * 12
    assert all(other.tolist() == [0] * 6 + [1] * 12 + [0] * 6 for other in others)


def test_a_repeated_border_is_padding_and_a_constant_row_inside_is_not() -> None:
    image = np.random.default_rng(0).random((1, 24, 24))
    image[0, 10] = 0.5
    assert (inside_profile(image) == 1).all()
    rows, columns = inside_profile(np.pad(image, [(0, 0), (0, 24), (0, 0)], mode="edge")).reshape(2, GRID)
    assert rows.tolist() == [1] * 12 + [0] * 12
    assert (columns == 1).all()
    assert (inside_profile(np.ones((1, 5, 5))) == 0).all()


def test_the_size_of_the_file_comes_from_its_header_or_from_the_manifest() -> None:
    def header(item: dict[str, Any], truth: bool, rng: np.random.Generator) -> None:
        item["file"] = {"spatial_shape": np.array([200, 100]), "original_affine": np.diag([-0.5, 2.0, 1, 1])}

    def manifest(item: dict[str, Any], truth: bool, rng: np.random.Generator) -> None:
        item |= {"width": "200", "height": "100", "meta": {"spacing_mm": [0.5, 2.0]}}

    told, read = (inputs_of(write)["image size"].train[0] for write in (manifest, header))
    assert told[[0, 1, 3, 4, 6, 7]].tolist() == read[[0, 1, 3, 4, 6, 7]].tolist() == [200, 100, 0.5, 2, 100, 200]
    assert told[9:11].tolist() == pytest.approx([np.log(200 * 100), np.log(2)])


def test_words_become_columns_and_what_is_missing_is_a_category() -> None:
    def write(item: dict[str, Any], truth: bool, rng: np.random.Generator) -> None:
        view = ("PA", "AP", None)[int(item["id"][1:]) % 3]
        item |= {"view": view, "meta": {"age": "045Y" if truth else "", "sex": "f", "diagnosis": truth}}

    one = inputs_of(write)["metadata"]
    assert one.reads == "view, age, image size"  # all are female, and the diagnosis is not asked for
    assert one.train.shape == (8, 3 + 2)
    assert one.train[:, :3].sum(axis=1).tolist() == [1] * 8  # ap, pa or missing
    assert set(one.train[:, 3]) == {45.0}
    assert one.train[:, 4].tolist() == [1, 1, 0, 0, 1, 1, 0, 0]  # whose age is missing


def test_a_view_that_training_never_showed_is_no_view() -> None:
    def write(view: str) -> CheckedDataset:
        def put(item: dict[str, Any], truth: bool, rng: np.random.Generator) -> None:
            item["view"] = view if truth else "PA"

        return dataset(put, seed=0, count=8)

    metadata = shortcut_inputs(write("AP"), write("lateral"))[-1]
    assert (metadata.train.sum(axis=1) == 1).all()
    assert metadata.test.sum(axis=1).tolist() == [1, 1, 0, 0, 1, 1, 0, 0]


def test_a_size_that_all_items_have_is_a_rival_and_one_that_only_the_ill_have_is_an_oracle() -> None:
    def diameter(item: dict[str, Any], truth: bool, rng: np.random.Generator) -> None:
        item["meta"] = {"diameter_mm": 20.0 if truth else 5.0}

    def lesions(item: dict[str, Any], truth: bool, rng: np.random.Generator) -> None:
        sizes = [{"name": "nodule", "size_mm": 9.0}, {"name": "nodule", "size_mm": 12.0}]
        item["meta"] = {"findings": sizes if truth else []}

    rival, oracle = (inputs_of(write)["lesion size"] for write in (diameter, lesions))
    assert rival.train.ravel().tolist() == [5, 5, 20, 20] * 2
    assert rival.unproven == "seeing more than the size"
    assert oracle.unproven == ""
    assert "oracle: reads the truth" in oracle.reads
    assert oracle.train[2].tolist() == [12.0, 0.0]  # the largest; the second column says that there is none
    assert inputs_of(diameter, size_column="meta.diameter_mm")["lesion size"].train.tolist() == rival.train.tolist()


def test_masks_are_measured_where_nothing_else_says_a_size(tmp_path: Any) -> None:
    flat, solid = np.zeros((10, 10), np.uint8), np.zeros((4, 4, 4), np.uint8)
    flat[:5, :5], solid[:2, :2, :2] = 255, 1
    Image.fromarray(flat).save(tmp_path / "mask.png")
    nib.save(nib.Nifti1Image(solid, np.diag([0.5, 0.5, 2.0, 1])), tmp_path / "mask.nii.gz")

    def write(item: dict[str, Any], truth: bool, rng: np.random.Generator) -> None:
        item["masks"] = {"area": str(tmp_path / "mask.png"), "volume": str(tmp_path / "mask.nii.gz")}

    one = inputs_of(write)["lesion size"]
    assert one.train[0].tolist() == [0.25, 8 * 0.5]
    assert one.reads.startswith("area, volume;")


def test_small_images_are_no_rivals_and_say_so() -> None:
    def crop(item: dict[str, Any], truth: bool, rng: np.random.Generator) -> None:
        item["image"] = item["image"][:, :48, :48]

    pixels = inputs_of(crop)["24 x 24 pixels"]
    assert pixels.unproven == ""
    assert "squares of 2.0 pixels a side, over channels and slices (no rival" in pixels.reads


def test_of_a_volume_the_squares_are_those_of_the_mean_over_slices() -> None:
    parts = [dataset(bare, seed=seed, count=8, spatial_dims=3) for seed in (0, 1)]
    pixels = shortcut_inputs(*parts)[0]
    assert pixels.unproven == "reading the image"
    assert pixels.train[0] == pytest.approx(parts[0].data[0]["image"].mean(dim=(0, 1)).numpy().ravel(), abs=1e-6)


def test_precomputed_features_have_no_pixels() -> None:
    items = [
        {"id": f"i{n}", "patient_id": f"p{n}", "label": [n % 2], "view": "AP" if n % 2 else "PA", "features": row}
        for n, row in enumerate(torch.rand(6, 5))
    ]
    data = CheckedDataset(items, [Identityd("features")], progress=False)
    encoder = torch.nn.Linear(5, 2)
    assert [one.name for one in shortcut_inputs(data, data, encoder=encoder, image_key="features")] == ["metadata"]
