"""InfoNCE with known answers, several right answers, chunks and processes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from monai_medclip.losses import ContrastiveLoss
from monai_medclip.outputs import CLIPOutput


def output(size: int = 12, width: int = 8, scale: float = 10.0) -> CLIPOutput:
    image, text = (F.normalize(torch.randn(size, width), dim=1).requires_grad_() for _ in range(2))
    return CLIPOutput(image, text, torch.tensor(scale, requires_grad=True), torch.tensor(0.0))


def gradients(loss: Tensor, found: CLIPOutput) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, found[:3])


@pytest.mark.parametrize("direction", ["symmetric", "one-way"])
def test_loss_is_log_batch_size_for_uninformative_embeddings(direction):
    same = F.normalize(torch.ones(32, 8), dim=1)
    found = ContrastiveLoss(direction)(CLIPOutput(same, same, torch.tensor(14.0), torch.tensor(0.0)), torch.arange(32))
    assert found.item() == pytest.approx(math.log(32), abs=1e-5)


def test_two_pairs_by_hand():
    """S = [[0.6, 0], [0.8, 1]] at scale 2: margins of rows 1.2 and 0.4, of columns -0.4 and 2."""
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    text = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    found = CLIPOutput(image, text, torch.tensor(2.0), torch.tensor(0.0))
    rows = (math.log1p(math.exp(-1.2)) + math.log1p(math.exp(-0.4))) / 2
    columns = (math.log1p(math.exp(0.4)) + math.log1p(math.exp(-2.0))) / 2
    assert ContrastiveLoss("one-way")(found, torch.arange(2)).item() == pytest.approx(rows, abs=1e-6)
    assert ContrastiveLoss()(found, torch.arange(2)).item() == pytest.approx((rows + columns) / 2, abs=1e-6)


def test_unique_positives_give_plain_info_nce():
    found = output()
    logits = found.logit_scale * found.image @ found.text.T
    matches = torch.arange(len(logits))
    expected = (F.cross_entropy(logits, matches) + F.cross_entropy(logits.T, matches)) / 2
    loss = ContrastiveLoss()(found, torch.randperm(100)[:12])
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)
    for ours, theirs in zip(gradients(loss, found), gradients(expected, found)):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(ContrastiveLoss(multi_positive=False)(found), expected, atol=1e-6, rtol=0)


def test_same_reports_share_the_target():
    """Four items, two of them with the same report: a perfect model is not punished for finding the twin."""
    text = torch.eye(3)[[0, 0, 1, 2]]
    found = CLIPOutput(text, text, torch.tensor(50.0), torch.tensor(0.0))
    positives = torch.tensor([7, 7, 8, 9])
    assert ContrastiveLoss()(found, positives).item() == pytest.approx(
        math.log(2) / 2, abs=1e-6
    )  # entropy of the targets
    logits = 50.0 * text @ text.T
    targets = torch.tensor([[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert ContrastiveLoss()(found, positives).item() == pytest.approx(
        F.cross_entropy(logits, targets).item(), abs=1e-6
    )


def test_punishing_the_twin_pushes_where_sharing_does_not():
    text = torch.eye(3)[[0, 0, 1]].requires_grad_()
    image = text.detach().clone().requires_grad_()
    found = CLIPOutput(image, text, torch.tensor(50.0), torch.tensor(0.0))
    positives = torch.tensor([7, 7, 8])
    (shared,) = torch.autograd.grad(ContrastiveLoss()(found, positives), [image])
    assert shared.abs().max() < 1e-4
    unlike = CLIPOutput(image, text + torch.tensor([[0.1], [0.0], [0.0]]), *found[2:])
    (punished,) = torch.autograd.grad(ContrastiveLoss(multi_positive=False)(unlike, positives), [image])
    assert punished.abs().max() > 0.1


@pytest.mark.parametrize("direction", ["symmetric", "one-way"])
@pytest.mark.parametrize("chunk_size", [1, 5, 12, 100])
def test_chunks_change_neither_value_nor_gradient(direction, chunk_size):
    found, positives = output(), torch.tensor([0, 1, 2, 0, 4, 5, 6, 2, 8, 9, 0, 11])
    whole = ContrastiveLoss(direction)(found, positives)
    chunked = ContrastiveLoss(direction, chunk_size=chunk_size)(found, positives)
    torch.testing.assert_close(chunked, whole, atol=1e-6, rtol=0)
    for ours, theirs in zip(gradients(chunked, found), gradients(whole, found)):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_chunks_never_keep_the_whole_matrix():
    """What autograd keeps for backward stays smaller than one B x B matrix."""
    size, kept = 256, []
    found, positives = output(size), torch.arange(size)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):
        loss = ContrastiveLoss(chunk_size=16)(found, positives)
    assert max(kept) < size * size / 8
    assert sum(kept) < size * size
    loss.backward()


def test_batch_order_does_not_matter():
    found, positives, order = output(), torch.tensor([0, 1, 2, 0, 4, 5, 6, 2, 8, 9, 0, 11]), torch.randperm(12)
    shuffled = CLIPOutput(found.image[order], found.text[order], *found[2:])
    torch.testing.assert_close(ContrastiveLoss()(shuffled, positives[order]), ContrastiveLoss()(found, positives))


def test_half_precision_embeddings_are_compared_in_float32():
    found = output(size=64)
    half = CLIPOutput(found.image.bfloat16(), found.text.bfloat16(), *found[2:])
    loss = ContrastiveLoss()(half, torch.arange(64))
    assert loss.dtype == torch.float32
    exact = ContrastiveLoss()(CLIPOutput(half.image.float(), half.text.float(), *found[2:]), torch.arange(64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(ContrastiveLoss()(half, torch.arange(64)), exact, atol=1e-6, rtol=0)


def test_bad_input_names_the_rule():
    found = output(size=3)
    with pytest.raises(ValueError, match=r"\(2,\).*3 pairs"):
        ContrastiveLoss()(found, torch.arange(2))
    with pytest.raises(ValueError, match="multi_positive=False"):
        ContrastiveLoss()(found)
    with pytest.raises(ValueError, match=r"must both be \(B, E\)"):
        ContrastiveLoss()(CLIPOutput(found.image[:2], *found[1:]), torch.arange(3))
    with pytest.raises(ValueError, match="'one-way'"):
        ContrastiveLoss("both")
