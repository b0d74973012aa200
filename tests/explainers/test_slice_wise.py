"""Slice by slice: the inner method's maps of single slices, of the volume's score, times the relevance of the slice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monai_medclip.explainers import (
    Chefer,
    Explainer,
    GatedPropagation,
    GradCAM,
    GradECLIP,
    IntegratedGradients,
    MedGradECLIP,
    Occlusion,
    SliceWise,
    UnfaithfulError,
    recommended,
)
from monai_medclip.networks import CLIP, SliceClassifier, SliceEncoder, SmallCNN, SmallViT, ZeroShotClassifier

from ..networks.toys import BagOfWords, tokenize
from .quadrants import Quadrants

NAMES = ["nodule", "mass", "effusion"]


def sliced(encoder: Any = None, findings: int = 2) -> ZeroShotClassifier:
    """A tiny CLIP of volumes, some of whose slices count more than others."""
    torch.manual_seed(0)
    slices = SliceEncoder(encoder or SmallViT((16, 24), width=64, depth=2, num_heads=2), heads=2, chunk=2)
    for weight in slices.pooling.parameters():
        nn.init.normal_(weight, std=0.5)
    return CLIP(slices, BagOfWords(), embed_dim=16).classifier(NAMES[:findings], tokenize).eval()


def volumes(batch: int = 2, slices: int = 5) -> Tensor:
    return torch.rand(batch, 1, slices, 16, 24, generator=torch.Generator().manual_seed(1))


class SlicedQuadrants(Quadrants):
    """Each finding's logit is the mean over slices of the mean intensity of one corner."""

    def __init__(self) -> None:
        super().__init__(2)
        self.image_encoder = SliceEncoder(self.image_encoder)  # untrained: the mean over slices


@pytest.mark.parametrize("explainer", [GradECLIP(blocks=2), Chefer(), Occlusion(window=8)])
def test_each_slice_has_the_map_of_its_own_whatever_the_chunk(explainer: Explainer) -> None:
    classifier, volume = sliced(), volumes()
    features = classifier.image_encoder.slice_features(volume)
    for chunk in (1, 2, 8):
        maps, scores = SliceWise(explainer, chunk=chunk, by_relevance=False).explain(classifier, volume)
        torch.testing.assert_close(scores, classifier(volume), rtol=1e-4, atol=1e-5)
        for number, place in ((0, 0), (1, 3)):
            alone = explainer(
                SliceClassifier(classifier),
                volume[number : number + 1, :, place],
                slice_features=features[number : number + 1],
                slice_index=torch.tensor([place]),
            )
            torch.testing.assert_close(maps[number, :, place], alone[0])
    assert float(maps.abs().max()) > 0


def test_slices_count_by_chefers_relevance_of_the_volume() -> None:
    classifier, volume = sliced(), volumes()
    where = SliceWise(GradECLIP(), by_relevance=False)(classifier, volume)
    which = Chefer()(classifier, volume)  # (B, F, S, rows, columns), the same all over a slice
    maps = SliceWise(GradECLIP(verify=True))(classifier, volume)
    torch.testing.assert_close(maps, where * which / which.amax((2, 3, 4), keepdim=True))
    assert float(which.std(dim=2).max()) > 0


@pytest.mark.parametrize("explainer", [Occlusion(window=4, stride=4, baseline=0.0), IntegratedGradients(baseline=0.0)])
@pytest.mark.parametrize("by_relevance", [True, False])
def test_a_mark_in_one_slice_is_found_there(explainer: Explainer, by_relevance: bool) -> None:
    volume = 0.1 * torch.rand(1, 1, 6, 24, 40, generator=torch.Generator().manual_seed(2))
    volume[0, 0, 4, 4:8, 8:12] += 1.0  # in the first finding's corner
    volume[0, 0, 1, 16:20, 28:32] += 1.0  # in the last one's
    maps = SliceWise(explainer, by_relevance=by_relevance, chunk=4)(SlicedQuadrants(), volume)[0]
    for of_finding, (place, rows, columns) in zip(maps, [(4, (4, 8), (8, 12)), (1, (16, 20), (28, 32))], strict=True):
        peak, row, column = (int(index) for index in torch.unravel_index(of_finding.argmax(), of_finding.shape))
        assert peak == place
        assert rows[0] <= row < rows[1]
        assert columns[0] <= column < columns[1]


def test_without_relevance_contributions_of_a_linear_score_add_up_over_the_slices() -> None:
    classifier, volume = SlicedQuadrants().eval(), torch.rand(2, 1, 6, 24, 40)
    method = IntegratedGradients(baseline=0.0, steps=2, positive=False)
    maps, scores = SliceWise(method, by_relevance=False).explain(classifier, volume)
    torch.testing.assert_close(maps.sum(dim=(2, 3, 4)), scores)


def test_order_of_slices_without_positions_is_only_their_place_in_the_map() -> None:
    classifier, volume = sliced(), volumes()
    explainer = SliceWise(GradECLIP())
    torch.testing.assert_close(explainer(classifier, volume.flip(2)).flip(2), explainer(classifier, volume))


def test_a_volume_alone_has_the_map_that_it_has_in_a_batch_with_context() -> None:
    classifier = SlicedQuadrants()
    classifier.context_keys = ("gain",)
    volume, gain = torch.rand(2, 1, 4, 24, 40), torch.tensor([1.0, -2.0])
    explainer = SliceWise(Occlusion(window=8))
    both = explainer.explain(classifier, volume, gain=gain)
    second = explainer.explain(classifier, volume[1:], gain=gain[1:])
    torch.testing.assert_close(both.heatmap[1:], second.heatmap)
    torch.testing.assert_close(both.scores[1:], second.scores)


@pytest.mark.parametrize("findings", [1, 3])
def test_one_chunk_is_in_memory_and_findings_share_the_passes(findings: int) -> None:
    classifier = sliced(findings=findings)
    explainer = SliceWise(GradECLIP(), chunk=3)
    explainer(classifier, volumes())  # the first call compares scores too
    passes: list[int] = []
    trunk = classifier.image_encoder.slice_encoder.trunk.blocks[0]
    trunk.register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))
    explainer(classifier, volumes())
    assert passes == [2] * 5 + [3, 2] * 2  # features of ten slices two by two, then each volume three by three


def test_padding_is_no_reason_to_refuse_a_volume() -> None:
    classifier, volume = sliced(), volumes()
    volume[:, :, [0, 3]] = 0.25
    maps = SliceWise(MedGradECLIP(radius=2), chunk=2)(classifier, volume)
    assert not bool(maps[:, :, [0, 3]].any())
    assert bool(maps.flatten(1).any(dim=1).all())
    with pytest.raises(ValueError, match="same local entropy in every patch"):
        SliceWise(MedGradECLIP(radius=2))(classifier, torch.full_like(volume, 0.25))


class Elsewhere(Explainer):
    """Explains another score than it was asked for."""

    name = "elsewhere"

    def _maps(self, classifier: Any, image: Tensor, context: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        scores = classifier(image, **context)
        return torch.ones(*scores.shape, *image.shape[2:]), scores + 0.01


def test_a_method_that_explains_another_score_gives_no_map() -> None:
    with pytest.raises(UnfaithfulError, match=r"elsewhere slice by slice took a score apart that is 0\.01 away"):
        SliceWise(Elsewhere())(sliced(), volumes())


def test_what_cannot_be_explained_is_refused() -> None:
    with pytest.raises(TypeError, match="Flat does not read a volume slice by slice"):
        SliceWise(Occlusion()).check(Quadrants(3))
    with pytest.raises(TypeError, match="reads attention, and SmallCNN has none"):
        SliceWise(GradECLIP()).check(sliced(SmallCNN((16, 24), channels=(4, 8), width=16)))
    with pytest.raises(ValueError, match="chunk=0"):
        SliceWise(GradECLIP(), chunk=0)


def test_the_recommended_method_is_that_of_the_slices() -> None:
    found = recommended(sliced(), verify=True)
    assert isinstance(found, SliceWise)
    assert isinstance(found.explainer, GatedPropagation)
    assert found.verify
    found.check(sliced())
    convolutional = sliced(SmallCNN((16, 24), channels=(4, 8), width=16))
    inner = recommended(convolutional).explainer  # type: ignore[attr-defined]
    assert isinstance(inner, GradCAM)
    assert isinstance(recommended(SliceClassifier(convolutional)), GradCAM)
    assert isinstance(recommended(), GatedPropagation)
