"""What a CT read slice by slice holds in memory at once: counted in bytes that torch asks for, never timed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from monai_medclip.explainers import Chefer, Explainer, GradECLIP, Occlusion, SliceWise
from monai_medclip.networks import CLIP, SliceEncoder, SmallViT, ZeroShotClassifier
from monai_medclip.transforms import DisplayOrderd, FitImaged, NormalizeForEncoderd, WindowHUd
from monai_medclip.writers import scanner_maps, write_scanner_maps

from ..networks.toys import BagOfWords, tokenize

CHUNK = 2
SIDE = 32  # of a slice, in pixels
FEW, MANY = 6, 24  # slices
WIDTH = 64
SMALL = 5_000  # bytes: offsets, affines and what else does not grow with a volume


def peak_bytes(call: Callable[[], object]) -> int:
    """The most that torch's CPU allocator holds at once beyond what it held before; what is returned counts."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    held = peak = 0
    events = (event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]")
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def size_of(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def volume(slices: int) -> Tensor:
    return torch.rand(1, 1, slices, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


class Counting(SmallViT):
    """Notes how many slices pass at once."""

    def __init__(self) -> None:
        super().__init__(SIDE, width=WIDTH, num_heads=2)
        self.passed: list[int] = []

    def forward(self, image: Tensor) -> Tensor:
        self.passed.append(len(image))
        return super().forward(image)


def over_slices(chunk: int | None = CHUNK, encoder: nn.Module | None = None) -> ZeroShotClassifier:
    torch.manual_seed(0)
    slices = SliceEncoder(encoder or SmallViT(SIDE, width=WIDTH, num_heads=2), chunk=chunk)
    nn.init.normal_(slices.pooling.query)  # untrained, no slice would differ from another
    return CLIP(slices, BagOfWords(), embed_dim=16).classifier(["nodule", "mass"], tokenize).eval()


def scored(classifier: ZeroShotClassifier, slices: int) -> int:
    image = volume(slices)
    with torch.no_grad():
        classifier(image)  # the prompts are encoded once
        return peak_bytes(lambda: classifier(image))


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_no_more_slices_than_a_chunk_pass_at_once_and_each_passes(chunk: int) -> None:
    encoder = Counting()
    classifier = over_slices(chunk, encoder)
    with torch.no_grad():
        classifier(volume(FEW))
    assert max(encoder.passed) == chunk
    assert sum(encoder.passed) == FEW


def test_scoring_takes_no_more_memory_for_more_slices_but_for_their_features() -> None:
    classifier = over_slices()
    features = 4 * WIDTH * (MANY - FEW)
    assert scored(classifier, MANY) - scored(classifier, FEW) < 2 * features + SMALL
    at_once = over_slices(None)
    assert scored(at_once, MANY) - scored(at_once, FEW) > 20 * (2 * features + SMALL)  # this test can fail


@pytest.mark.parametrize("method", [GradECLIP(), Chefer(), Occlusion(window=16)], ids=lambda method: method.name)
def test_explaining_takes_no_more_memory_for_more_slices_but_for_the_maps(method: Explainer) -> None:
    classifier = over_slices()

    def explained(slices: int) -> tuple[int, int]:
        image, explainer = volume(slices), SliceWise(method, chunk=CHUNK)
        explainer.explain(classifier, image)  # the first call compares scores
        maps: list[Tensor] = []
        peak = peak_bytes(lambda: maps.append(explainer(classifier, image)))
        return peak, size_of(maps[0])

    (few, few_maps), (many, many_maps) = explained(FEW), explained(MANY)
    features = 4 * WIDTH * (MANY - FEW)
    assert few_maps * MANY == many_maps * FEW
    # Features of all slices stand beside each slice of a chunk, normalized, as keys, with their gradients.
    assert many - few < (many_maps - few_maps) + 12 * CHUNK * features + SMALL


GRID = (12, 40, 40)  # what a network reads: slices, rows, columns
NATIVE = (60, 56, 30)  # what was scanned: x, y, z
PIPELINES = {
    "stretched": {"how": "stretch"},
    "padded": {},
    "at a scale": {"spacing_mm": (2.5, 1.3, 1.3)},
}


def prepared(how: dict[str, Any], prompts: int) -> tuple[Compose, MetaTensor]:
    """A pipeline and maps of an image that it made."""
    pipeline = Compose([DisplayOrderd("image", spatial_dims=3), FitImaged("image", GRID, **how)])
    affine = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64))
    image = pipeline({"image": MetaTensor(torch.rand(1, *NATIVE), affine=affine)})["image"]
    return pipeline, MetaTensor(torch.rand(prompts, *GRID)).copy_meta_from(image)


@pytest.mark.parametrize("how", PIPELINES.values(), ids=PIPELINES)
def test_the_way_back_takes_the_map_on_its_own_grid_and_at_most_one_more(how: dict[str, Any]) -> None:
    pipeline, maps = prepared(how, prompts=1)
    assert pipeline.inverse({"image": maps.clone()})["image"].shape == (1, *NATIVE)
    native, on_grid = 4 * 60 * 56 * 30, size_of(maps)
    assert peak_bytes(lambda: scanner_maps(maps, pipeline)) <= native + 2 * on_grid + SMALL  # cut, and averaged


def test_the_way_back_copies_no_map_that_fills_the_networks_grid() -> None:
    pipeline, maps = prepared({"how": "stretch"}, prompts=1)
    # z has 30 slices for 12, x and y 60 and 56 for 40: every axis grows, and nothing is averaged before.
    assert peak_bytes(lambda: scanner_maps(maps, pipeline)) <= 4 * 60 * 56 * 30 + SMALL


def test_maps_of_more_prompts_are_written_in_the_memory_of_one(tmp_path: Path) -> None:
    def written(prompts: int) -> int:
        pipeline, maps = prepared({}, prompts)
        names = [f"finding {number}" for number in range(prompts)]
        return peak_bytes(lambda: write_scanner_maps(tmp_path / str(prompts), maps, pipeline, names, method="Chefer"))

    assert written(5) - written(1) < SMALL


@pytest.mark.parametrize("windows", [["lung"], ["lung", "bone"]])
def test_a_window_of_a_whole_volume_takes_one_volume_more(windows: list[str]) -> None:
    image = MetaTensor(torch.rand(1, *NATIVE) * 2000 - 1000)
    window = WindowHUd("image", windows)
    # One is made in place; several are put together at the end.
    times = 1 if len(windows) == 1 else 2 * len(windows)
    assert peak_bytes(lambda: window({"image": image})) <= times * size_of(image) + SMALL


def test_normalizing_takes_one_volume_more() -> None:
    image = MetaTensor(torch.rand(1, *NATIVE))
    normalize = NormalizeForEncoderd("image", mean=[0.5, 0.4, 0.3], std=[0.25, 0.2, 0.1])
    assert peak_bytes(lambda: normalize({"image": image})) <= 3 * size_of(image) + SMALL  # three channels
