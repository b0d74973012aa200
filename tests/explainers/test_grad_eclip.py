"""Grad-ECLIP: its identities with attention gradients, its lambda, several blocks, one head instead of many."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from monai_medclip.explainers import GradECLIP
from monai_medclip.explainers.base import upsample

from .byhand import classifier, images, last_attention, on_patches


def test_without_lambda_it_is_the_sum_of_attention_gradients_over_heads() -> None:
    network, image = classifier(), images()
    expected = F.relu(on_patches(last_attention(network, image).gradient.sum(dim=2)))  # ReLU(sum_h G[h, cls, i])
    found = GradECLIP(loosening="none").explain(network, image)
    torch.testing.assert_close(found.heatmap, upsample(expected, (32, 32)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.scores, network(image), rtol=1e-4, atol=1e-4)
    assert float(expected.max()) > 0


def test_lambda_multiplies_it_by_the_scaled_cosine_of_query_and_key() -> None:
    network, image = classifier(), images()
    at = last_attention(network, image)
    query, keys = (part.transpose(1, 2).flatten(2) for part in (at.qkv.q[:, :, :1], at.qkv.k[:, :, 1:]))
    cosine = F.cosine_similarity(query, keys, dim=-1)  # (B, 16)
    scaled = (cosine - cosine.amin(1, keepdim=True)) / (cosine.amax(1, keepdim=True) - cosine.amin(1, keepdim=True))
    expected = F.relu(on_patches(at.gradient.sum(dim=2))) * scaled.unflatten(-1, (4, 4)).unsqueeze(1)
    torch.testing.assert_close(GradECLIP()(network, image), upsample(expected, (32, 32)), rtol=1e-4, atol=1e-5)


def test_blocks_add_up_each_after_its_own_relu() -> None:
    network, image = classifier(), images()
    both, last = GradECLIP(blocks=2)(network, image), GradECLIP()(network, image)
    assert bool((both >= last - 1e-5).all())
    assert not torch.allclose(both, last)
    torch.testing.assert_close(GradECLIP(blocks=None)(network, image), both)


def test_published_heads_explain_another_model_and_say_so() -> None:
    network, image = classifier(), images()
    published = GradECLIP(heads="published", verify=True).explain(network, image)  # no error
    assert not torch.allclose(published.scores, network(image), atol=1e-3)
    assert not torch.allclose(published.heatmap, GradECLIP()(network, image))
    assert not GradECLIP(heads="published").explains_own_score


@pytest.mark.parametrize("wrong", [{"loosening": "some"}, {"heads": "two"}, {"blocks": 0}, {"target": "p"}])
def test_unknown_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"use|at least"):
        GradECLIP(**wrong)  # type: ignore[arg-type]


def test_more_blocks_than_there_are_are_refused_before_any_work() -> None:
    with pytest.raises(TypeError, match="has 2 of them"):
        GradECLIP(blocks=3)(classifier(), torch.zeros(0))
