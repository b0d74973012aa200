"""The rounded copy: its bound holds, nothing that belongs is ruled out, and clipped products are noticed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from monai_medclip.index import rounded
from monai_medclip.index.rounded import RoundedCopy, RoundedRows


@pytest.fixture(autouse=True)
def _choose_anew() -> None:
    rounded._product.cache_clear()


def test_rounding_loses_half_a_step_at_most() -> None:
    rows = torch.tensor([[0.0, 0.0, 0.0], [1.27, -0.012, 0.004], [-1e-3, 1e-3, 0.0]])
    vectors = RoundedRows.of(rows)
    assert vectors.numbers.tolist() == [[0, 0, 0], [127, -1, 0], [-127, 127, 0]]
    assert vectors.steps.tolist()[1:] == pytest.approx([0.01, 1e-3 / 127])
    assert ((rows - vectors.restored()).abs() <= vectors.steps[:, None] * 0.5001).all()


@pytest.mark.parametrize("count, k", [(40_001, 10), (100, 100), (70, 3), (1, 1)])
@pytest.mark.parametrize("spread", [1.0, 0.01])
def test_the_shortlist_holds_the_nearest_and_its_errors_hold(count: int, k: int, spread: float) -> None:
    middle = F.normalize(torch.randn(32), dim=0)
    rows = F.normalize(middle + spread * torch.randn(count, 32), dim=1)
    queries = F.normalize(middle + spread * torch.randn(3, 32), dim=1)
    cosines = queries.double() @ rows.double().T
    listed = RoundedCopy.of(rows, middle).shortlist(queries, k)
    assert ((listed.scores - cosines[listed.queries, listed.rows]).abs() <= listed.errors).all()
    for number, best in enumerate(cosines.topk(k, dim=1).indices):
        mine = listed.rows[listed.queries == number]
        assert set(best.tolist()) <= set(mine.tolist())
        assert torch.equal(mine, mine.unique())  # ascending, each once
    assert count < 1000 or len(listed.rows) < 3 * count / 50  # it rules out most of a large index


@pytest.mark.parametrize("width", [1, 2, 5])
def test_queries_along_the_center_and_rows_on_it_are_no_special_case(width: int) -> None:
    axis = F.one_hot(torch.tensor(0), width).float()
    rows = torch.stack([axis, -axis, axis, axis])
    for center in (axis / 2, axis, torch.zeros(width), 1e-20 * axis):
        listed = RoundedCopy.of(rows, center).shortlist(torch.stack([axis, -axis]), 1)
        assert listed.rows.tolist() == [0, 2, 3, 1]
        assert (listed.scores - 1).abs().le(listed.errors).all()


def test_one_coarse_row_does_not_spoil_the_others() -> None:
    rows = F.normalize(torch.randn(80_000, 64), dim=1)
    rows[70_000] = F.one_hot(torch.tensor(3), 64).float()
    fine, coarse = (RoundedCopy.of(part, torch.zeros(64)) for part in (rows[:70_000], rows))
    queries = rows[:4]
    assert len(coarse.shortlist(queries, 10).rows) < 2 * len(fine.shortlist(queries, 10).rows)


def test_both_products_are_those_of_whole_numbers() -> None:
    queries = torch.randint(-127, 128, (5, 96), dtype=torch.int8)
    rows = torch.randint(-127, 128, (2500, 96), dtype=torch.int8)
    right = (queries.long() @ rows.long().T).float()
    assert torch.equal(rounded._by_float(queries, rows), right)
    assert torch.equal(rounded._product(96)(queries, rows).float(), right)


def clipped(queries: Tensor, rows: Tensor) -> Tensor:
    """As processors without VNNI add: pairs of products in 16 bits."""
    pairs = (queries.int()[:, None] * rows.T.int()).unflatten(2, (-1, 2)).sum(3)
    return pairs.clamp(-(2**15), 2**15 - 1).sum(2).int()


def refused(queries: Tensor, rows: Tensor) -> Tensor:
    raise RuntimeError("no kernel")


@pytest.mark.parametrize("broken", [clipped, refused, None])
def test_a_wrong_or_missing_integer_product_is_not_used(monkeypatch: pytest.MonkeyPatch, broken: object) -> None:
    monkeypatch.setattr(torch, "_int_mm", broken, raising=False)
    assert rounded._product(64) is rounded._by_float
