"""SigLIP's pairwise sigmoid with known answers."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from monai_medclip.losses import SigLIPLoss
from monai_medclip.outputs import CLIPOutput


def output(size: int = 10, scale: float = 10.0, bias: float = -10.0) -> CLIPOutput:
    image, text = (F.normalize(torch.randn(size, 8), dim=1).requires_grad_() for _ in range(2))
    return CLIPOutput(image, text, torch.tensor(scale, requires_grad=True), torch.tensor(bias, requires_grad=True))


def test_without_scale_and_bias_every_pair_costs_log_two():
    assert SigLIPLoss()(output(scale=0.0, bias=0.0), torch.arange(10)).item() == pytest.approx(
        10 * math.log(2), rel=1e-6
    )


def test_orthogonal_pairs_by_hand():
    """Each of B rows: one match with logit t + b, B - 1 others with logit b."""
    found = CLIPOutput(torch.eye(4), torch.eye(4), torch.tensor(10.0), torch.tensor(-5.0))
    expected = math.log1p(math.exp(-5.0)) + 3 * math.log1p(math.exp(-5.0))
    assert SigLIPLoss()(found, torch.arange(4)).item() == pytest.approx(expected, rel=1e-5)


def test_same_reports_are_matches():
    found = CLIPOutput(torch.eye(3)[[0, 0, 1]], torch.eye(3)[[0, 0, 1]], torch.tensor(10.0), torch.tensor(-5.0))
    positives = torch.tensor([3, 3, 4])
    expected = 9 * math.log1p(math.exp(-5.0)) / 3  # every one of the nine pairs is right by a margin of 5
    assert SigLIPLoss()(found, positives).item() == pytest.approx(expected, rel=1e-5)
    assert SigLIPLoss(multi_positive=False)(found).item() == pytest.approx(expected + 2 * 5 / 3, rel=1e-5)


@pytest.mark.parametrize("chunk_size", [1, 4, 10])
def test_chunks_change_neither_value_nor_gradient(chunk_size):
    found, positives = output(), torch.tensor([0, 1, 2, 0, 4, 5, 6, 2, 8, 9])
    whole, chunked = SigLIPLoss()(found, positives), SigLIPLoss(chunk_size=chunk_size)(found, positives)
    torch.testing.assert_close(chunked, whole, atol=1e-6, rtol=1e-6)
    for ours, theirs in zip(torch.autograd.grad(chunked, found), torch.autograd.grad(whole, found)):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
