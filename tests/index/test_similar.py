"""Similar cases: the nearest first, and never the query's own patient."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from monai_medclip.index import ApproximateIndex, EmbeddingIndex, similar_cases


def angles(*degrees: float) -> Tensor:
    radians = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([radians.cos(), radians.sin()], dim=1)


@pytest.fixture
def index(tmp_path: Path) -> EmbeddingIndex:
    """Entries at 0, 10, ... 50 degrees of patients a, a, b, a, c, c."""
    index = EmbeddingIndex.create(tmp_path, 2, model="m")
    entries = [{"id": f"i{number}", "patient_id": patient} for number, patient in enumerate("aabacc")]
    index.add(angles(0, 10, 20, 30, 40, 50), entries, model="m")
    return index


def ids(cases: list) -> list[str]:
    return [case.record["id"] for case in cases]


def test_the_nearest_come_first_with_their_cosines_and_ranks(index: EmbeddingIndex) -> None:
    (cases,) = similar_cases(index, angles(1), 3)
    assert ids(cases) == ["i0", "i1", "i2"]
    assert [case.rank for case in cases] == [1, 2, 3]
    cosines = torch.deg2rad(torch.tensor([1.0, 9.0, 19.0])).cos().tolist()
    assert [case.score for case in cases] == pytest.approx(cosines, abs=1e-6)


def test_the_own_patient_is_left_out_of_that_query_only(index: EmbeddingIndex) -> None:
    of_a, of_none, of_c = similar_cases(index, angles(1, 1, 49), 2, exclude_patients=["a", None, "c"])
    assert (ids(of_a), ids(of_none), ids(of_c)) == (["i2", "i4"], ["i0", "i1"], ["i3", "i2"])
    assert [case.rank for case in of_a] == [1, 2]


def test_ids_are_left_out_of_every_answer(index: EmbeddingIndex) -> None:
    answers = similar_cases(index, angles(1, 49), 2, exclude_ids=["i0", "i5"])
    assert [ids(cases) for cases in answers] == [["i1", "i2"], ["i4", "i3"]]


def test_a_patient_with_more_entries_than_were_fetched_is_passed_over(tmp_path: Path) -> None:
    index = EmbeddingIndex.create(tmp_path, 2, model="m")
    entries = [{"id": str(number), "patient_id": "a" if number < 97 else "b"} for number in range(100)]
    index.add(angles(*(number / 2 for number in range(100))), entries, model="m")
    (cases,) = similar_cases(index, angles(0), 2, exclude_patients=["a"])
    assert ids(cases) == ["97", "98"]
    (cases,) = similar_cases(index, angles(0), 5, exclude_patients=["a"])
    assert ids(cases) == ["97", "98", "99"]  # no more are left


def test_an_approximate_index_answers_too(index: EmbeddingIndex) -> None:
    pytest.importorskip("faiss", reason="FAISS is not installed")
    (cases,) = similar_cases(ApproximateIndex.build(index), angles(1), 2, exclude_patients=["a"])
    assert ids(cases) == ["i2", "i4"]


def test_what_cannot_be_asked_says_why(tmp_path: Path, index: EmbeddingIndex) -> None:
    with pytest.raises(ValueError, match="the index is empty"):
        similar_cases(EmbeddingIndex.create(tmp_path / "new", 2, model="m"), angles(0))
    with pytest.raises(ValueError, match="2 queries and 1 exclude_patients"):
        similar_cases(index, angles(0, 1), exclude_patients=["a"])
    with pytest.raises(ValueError, match="exclude_patients='ab'"):
        similar_cases(index, angles(0, 1), exclude_patients="ab")
    with pytest.raises(ValueError, match="k=0"):
        similar_cases(index, angles(0), 0, exclude_ids=["i0"])
    with pytest.raises(ValueError, match="hold NaN"):
        similar_cases(index, angles(torch.nan))
    index.add(angles(5), [{"id": "nobody's"}], model="m")
    with pytest.raises(ValueError, match='entry "nobody\'s" of the index has no patient_id'):
        similar_cases(index, angles(5), 1, exclude_patients=["a"])
