"""Local entropy equals skimage's `rank.entropy`, borders and volumes included, by every backend."""

from __future__ import annotations

import sys
from math import log2

import numpy as np
import pytest
import torch
from skimage.filters import rank
from skimage.morphology import ball, disk

from monai_medclip.explainers import entropy
from monai_medclip.explainers.entropy import local_entropy

TOLERANCE = {"numba": 1e-9, "skimage": 1e-9, "torch": 1e-5}


def noise(*shape: int, levels: int = 256) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, levels, shape).astype(np.uint8))


@pytest.fixture(params=sorted(TOLERANCE))
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "numba":
        pytest.importorskip("numba")
    return request.param


def assert_equals_skimage(gray: torch.Tensor, radius: int, backend: str) -> None:
    footprint = disk(radius) if gray.ndim == 3 else ball(radius)
    theirs = torch.stack([torch.from_numpy(rank.entropy(image, footprint)) for image in gray.numpy()])
    ours = local_entropy(gray, radius, backend=backend)
    assert ours.shape == gray.shape
    torch.testing.assert_close(ours.double(), theirs, atol=TOLERANCE[backend], rtol=0)


@pytest.mark.parametrize("levels", [2, 30, 256])
@pytest.mark.parametrize("radius", [1, 2, 5])
def test_images_equal_skimage(backend, radius, levels):
    assert_equals_skimage(noise(2, 31, 44, levels=levels), radius, backend)


@pytest.mark.parametrize("radius", [1, 3])
def test_volumes_equal_skimage(backend, radius):
    assert_equals_skimage(noise(2, 9, 12, 11, levels=40), radius, backend)


@pytest.mark.parametrize("shape", [(1, 3, 40), (1, 40, 3), (1, 1, 1), (1, 2, 3, 4)], ids=str)
def test_images_smaller_than_the_neighborhood_equal_skimage(backend, shape):
    assert_equals_skimage(noise(*shape), 6, backend)


def test_a_large_image_equals_skimage_to_the_end_of_its_rows(backend):
    assert_equals_skimage(noise(1, 40, 700), 5, backend)  # running sums must not drift


def test_hand_computed_values(backend):
    edge = torch.zeros(1, 7, 8, dtype=torch.uint8)
    edge[..., 4:] = 200
    found = local_entropy(edge, 1, backend=backend)[0]
    assert found[3, 0] == pytest.approx(0.0, abs=1e-6)  # flat: no information
    share = 1 / 5  # a cross of five pixels, one beyond the edge
    assert found[3, 3] == pytest.approx(-share * log2(share) - (1 - share) * log2(1 - share), abs=1e-5)
    assert found[0, 3] == pytest.approx(-0.25 * log2(0.25) - 0.75 * log2(0.75), abs=1e-5)  # one arm is outside
    distinct = torch.arange(25, dtype=torch.uint8).reshape(1, 5, 5)
    assert local_entropy(distinct, 1, backend=backend)[0, 2, 2] == pytest.approx(log2(5), abs=1e-5)


def test_relabeling_gray_values_changes_nothing(backend):
    gray = noise(1, 20, 20, levels=16)
    names = torch.from_numpy(np.random.default_rng(1).permutation(256).astype(np.uint8))
    relabeled = names[gray.long()]
    torch.testing.assert_close(
        local_entropy(gray, 3, backend=backend), local_entropy(relabeled, 3, backend=backend), atol=1e-5, rtol=0
    )


def test_torch_gives_the_same_in_small_portions(monkeypatch):
    gray = noise(2, 16, 16)
    whole = local_entropy(gray, 4, backend="torch")
    monkeypatch.setattr(entropy, "LEVEL_PIXELS", 3 * gray.numel())
    torch.testing.assert_close(local_entropy(gray, 4, backend="torch"), whole, atol=1e-5, rtol=0)


def test_without_numba_skimage_takes_over(monkeypatch):
    gray = noise(1, 10, 10)
    monkeypatch.setattr(entropy, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(entropy, "_compiled", entropy._compiled.__wrapped__)
    monkeypatch.setitem(entropy.BACKENDS, "skimage", lambda gray, radius: torch.full(gray.shape, 42.0))
    assert local_entropy(gray).eq(42).all()
    with pytest.raises(ImportError, match=r"monai-medclip\[numba\]"):
        local_entropy(gray, backend="numba")


@pytest.mark.parametrize(
    ("gray", "arguments", "message"),
    [
        (torch.zeros(1, 8, 8), {}, "float32"),
        (torch.zeros(8, 8, dtype=torch.uint8), {}, r"\(8, 8\)"),
        (noise(1, 8, 8), {"radius": 0}, "radius=0"),
        (noise(1, 8, 8), {"backend": "cupy"}, "cupy"),
    ],
    ids=["dtype", "axes", "radius", "backend"],
)
def test_what_makes_no_sense_is_refused(gray, arguments, message):
    with pytest.raises(ValueError, match=message):
        local_entropy(gray, **arguments)
