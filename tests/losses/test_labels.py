"""Cross-entropy over the labels that are known, with known answers."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from monai_medclip.losses import LabelLoss

NAN = float("nan")


def test_a_logit_of_zero_costs_log_two() -> None:
    label = torch.tensor([[1.0, 0.0], [0.0, NAN]])
    assert LabelLoss()(torch.zeros(2, 2), label).item() == pytest.approx(math.log(2))


def test_a_mean_over_known_labels_by_hand() -> None:
    logits = torch.tensor([[2.0, -1.0, 30.0]])
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))) / 2
    assert LabelLoss()(logits, torch.tensor([[1.0, 0.0, NAN]])).item() == pytest.approx(expected)


def test_with_all_labels_known_it_is_torchs_own() -> None:
    logits, label = torch.randn(5, 3), torch.randint(2, (5, 3)).float()
    torch.testing.assert_close(LabelLoss()(logits, label), F.binary_cross_entropy_with_logits(logits, label))


def test_unknown_labels_give_no_gradient_and_take_none_from_others() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    label = torch.tensor([[1.0, NAN, 0.0]] * 4)
    LabelLoss()(logits, label).backward()
    assert logits.grad is not None
    assert logits.grad[:, 1].tolist() == [0.0] * 4
    torch.testing.assert_close(logits.grad[:, 0], (logits[:, 0].sigmoid() - 1).detach() / 8)


def test_a_batch_without_a_known_label_changes_nothing() -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    loss = LabelLoss()(logits, torch.full((2, 3), NAN))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(2, 3))


def test_half_precision_is_summed_in_float32() -> None:
    loss = LabelLoss()(torch.randn(3, 2).bfloat16(), torch.ones(3, 2))
    assert loss.dtype is torch.float32
