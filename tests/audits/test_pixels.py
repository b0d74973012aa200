import numpy as np
import pytest
import torch
from monai.transforms import RandGaussianNoised

from monai_medclip.audits import dataset_baselines, pixel_baselines
from monai_medclip.transforms import CheckedDataset

NAMES = ("bright corner", "bright image", "texture")


def _images(count, seed):
    rng = np.random.default_rng(seed)
    images, labels = [], []
    for _ in range(count):
        corner, bright, texture = rng.random(3) < 0.5
        image = rng.normal(0.4, 0.02, (48, 48)).astype(np.float32)
        image += 0.2 * bright
        image[:8, :8] += 0.1 * corner
        if texture:  # a pattern whose mean over every square is zero
            image[::2] += 0.03
            image[1::2] -= 0.03
        images.append(image)
        labels.append([corner, bright, texture])
    return images, np.asarray(labels, float)


def test_each_baseline_sees_what_it_can_see():
    train, test = _images(200, 0), _images(100, 1)
    found = pixel_baselines(*train, *test, names=NAMES)
    assert found.pixels[0] > 0.99
    assert found.pixels[1] > 0.99
    assert found.pixels[2] < 0.75  # squares of 2 x 2 pixels cancel the stripes
    assert found.histogram[1] > 0.99
    assert found.mean_pixels == pytest.approx(np.mean(found.pixels))
    assert found.mean_histogram == pytest.approx(np.mean(found.histogram))


def test_labels_at_random_stay_at_chance():
    images, _ = _images(300, 2)
    labels = np.random.default_rng(3).integers(0, 2, (300, 1)).astype(float)
    found = pixel_baselines(images[:150], labels[:150], images[150:], labels[150:], names=["coin"])
    assert abs(found.pixels[0] - 0.5) < 0.12
    assert abs(found.histogram[0] - 0.5) < 0.12


def test_unknown_labels_are_left_out_and_one_class_has_no_auc():
    (train, fit), (test, ask) = _images(120, 4), _images(60, 5)
    fit[::3, 1] = np.nan
    ask[:, 2] = 1
    found = pixel_baselines(train, fit, test, ask, names=NAMES)
    assert found.pixels[1] > 0.99
    assert np.isnan(found.pixels[2])
    assert np.isfinite(found.mean_pixels)


def test_the_gray_scale_and_a_channel_axis_do_not_matter():
    (train, fit), (test, ask) = _images(80, 6), _images(40, 7)
    plain = pixel_baselines(train, fit, test, ask, names=NAMES)
    scaled = pixel_baselines([1000 * x[None] for x in train], fit, [1000 * x[None] for x in test], ask, names=NAMES)
    assert np.allclose(plain.pixels, scaled.pixels, atol=0.01)


def test_sizes_that_are_no_multiple_of_the_grid_keep_their_mean():
    from monai_medclip.audits.pixels import GRID, _grids

    image = np.arange(100 * 50, dtype=np.float32).reshape(100, 50)
    grid = _grids([image], (0.0, 1.0))
    assert grid.shape == (1, GRID * GRID)
    assert grid.mean() == pytest.approx(image.mean(), rel=1e-5)


def test_wrong_shapes_say_what_to_give():
    images, labels = _images(10, 8)
    with pytest.raises(ValueError, match=r"10 images and 2 findings"):
        pixel_baselines(images, labels, images, labels, names=NAMES[:2])


def test_the_table_has_a_line_per_finding_and_the_mean():
    train, test = _images(60, 9), _images(30, 10)
    lines = str(pixel_baselines(*train, *test, names=NAMES)).splitlines()
    assert len(lines) == 5
    assert lines[-1].startswith("mean")


def _dataset(images, labels, channels=1):
    stacks = [torch.from_numpy(np.stack([image] * channels)) for image in images]
    items = [{"image": image, "label": label} for image, label in zip(stacks, labels.tolist(), strict=True)]
    # A random transform that would destroy what the baseline sees: it must not be applied.
    return CheckedDataset(items, [RandGaussianNoised("image", prob=1.0, std=100.0)], progress=False)


@pytest.mark.parametrize("channels", [1, 3])
def test_baselines_of_datasets_are_those_of_their_images_without_random_transforms(channels):
    (images, labels), (asked, answers) = _images(120, 0), _images(60, 1)
    found = dataset_baselines(_dataset(images, labels, channels), _dataset(asked, answers, channels), names=NAMES)
    expected = pixel_baselines(images, labels, asked, answers, names=NAMES)
    assert found.names == NAMES
    assert found.pixels == pytest.approx(expected.pixels, abs=1e-3)
    assert found.histogram == pytest.approx(expected.histogram, abs=1e-3)
    assert found.as_dict()["mean"]["pixels_auc"] == found.mean_pixels
    assert "24 x 24" in str(found)


def test_of_volumes_the_squares_are_those_of_the_mean_over_slices():
    (images, labels), (asked, answers) = _images(80, 0), _images(40, 1)
    stacks = [[np.stack([image - 0.1, image + 0.1]) for image in part] for part in (images, asked)]
    found = dataset_baselines(_dataset(stacks[0], labels), _dataset(stacks[1], answers), names=NAMES)
    expected = pixel_baselines(images, labels, asked, answers, names=NAMES)
    assert found.pixels == pytest.approx(expected.pixels, abs=0.01)
