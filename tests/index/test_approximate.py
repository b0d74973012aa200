"""Approximate search: exact cosines, few misses, growing beside its exact index, and refusing another one."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from monai_medclip.index import ApproximateIndex, EmbeddingIndex

faiss = pytest.importorskip("faiss", reason="FAISS is not installed")
faiss.omp_set_num_threads(1)
ENOUGH = 10_000  # for ivfpq


def curved(count: int, *, seed: int = 0, width: int = 16) -> Tensor:
    """Embeddings on a surface of 4 dimensions, as those of real images are on one of few."""
    maps = torch.Generator().manual_seed(0)
    first, second = torch.randn(4, 32, generator=maps), torch.randn(32, width, generator=maps)
    return torch.tanh(torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)) @ first) @ second


def filled(folder: Path, rows: Tensor, *, model: str = "m") -> EmbeddingIndex:
    index = EmbeddingIndex.create(folder, rows.shape[1], model=model)
    append(index, rows)
    return index


def append(index: EmbeddingIndex, rows: Tensor) -> None:
    index.add(rows, [{"id": str(len(index) + number)} for number in range(len(rows))], model=index.model)


@pytest.mark.parametrize("kind, count", [("hnsw", 2000), ("ivfpq", ENOUGH)])
def test_it_finds_nearly_all_and_scores_exactly(tmp_path: Path, kind: str, count: int) -> None:
    exact = filled(tmp_path, curved(count))
    approximate = ApproximateIndex.build(exact, kind)
    queries = curved(20, seed=1)
    assert approximate.recall_at(10, queries) > 0.95
    found = ApproximateIndex(EmbeddingIndex(tmp_path), kind).search(3 * queries, 10)  # opened by another process
    assert found.rows.shape == (20, 10)
    unit = torch.nn.functional.normalize(queries, dim=1)
    cosines = torch.stack([torch.tensor(exact.embeddings()[rows.numpy()]) @ one for one, rows in zip(unit, found.rows)])
    torch.testing.assert_close(found.scores, cosines, atol=1e-6, rtol=0)
    assert (found.scores.diff(dim=1) <= 0).all()


def test_recall_counts_what_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    approximate = ApproximateIndex.build(filled(tmp_path, curved(500)))
    truly = approximate.exact.search(curved(1, seed=1), 500).rows[0].numpy()
    monkeypatch.setattr(approximate, "_proposed", lambda queries, count: truly[None, 3:40])  # without the best three
    assert approximate.recall_at(10, curved(1, seed=1)) == pytest.approx(0.7)


def test_a_query_with_too_few_proposals_is_searched_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    approximate = ApproximateIndex.build(filled(tmp_path, curved(100)))
    nothing = torch.full((2, 40), -1).numpy()
    monkeypatch.setattr(approximate, "_proposed", lambda queries, count: nothing)
    assert approximate.recall_at(10, curved(2, seed=1)) == 1


@pytest.mark.parametrize("kind, count", [("hnsw", 300), ("ivfpq", ENOUGH)])
def test_new_entries_are_found_at_once_and_added_without_building(tmp_path: Path, kind: str, count: int) -> None:
    exact = filled(tmp_path, curved(count))
    approximate = ApproximateIndex.build(exact, kind)
    new = curved(7, seed=2)
    append(exact, new)
    for _ in range(2):  # before and after the update
        assert len(approximate) == count + 7
        assert approximate.search(new, 1).rows[:, 0].tolist() == list(range(count, count + 7))
        added = approximate.update()
    assert (added, approximate.update()) == (0, 0)
    assert ApproximateIndex(EmbeddingIndex(tmp_path), kind)._covered == count + 7


@pytest.mark.parametrize("killed_at", ["hnsw.json", "hnsw.faiss"])
def test_a_killed_update_leaves_what_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: str) -> None:
    exact = filled(tmp_path, curved(300))
    approximate = ApproximateIndex.build(exact)
    append(exact, curved(5, seed=2))
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if Path(target).name == killed_at:
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            approximate.update()
    assert approximate.search(curved(3, seed=2), 9).rows.sort().values.diff(dim=1).ne(0).all()  # nothing comes twice
    again = ApproximateIndex(EmbeddingIndex(tmp_path))
    assert (again._covered, len(again)) == (300, 305)
    assert again.update() == 5


def test_an_index_that_was_made_anew_is_refused(tmp_path: Path) -> None:
    ApproximateIndex.build(filled(tmp_path / "old", curved(300)))
    for name, rows, model, message in (
        ("shrunk", curved(200), "m", "covers 300 entries that are not the first ones of the 200"),
        ("other", curved(300, seed=5), "m", "was made anew since"),
        ("model", curved(300), "n", "built for model 'm', the index has 'n'"),
        ("width", curved(300, width=8), "m", "built for width 16, the index has 8"),
    ):
        exact = filled(tmp_path / name, rows, model=model)
        for file in ("hnsw.faiss", "hnsw.json"):
            shutil.copy(tmp_path / "old" / file, tmp_path / name / file)
        with pytest.raises(ValueError, match=message):
            ApproximateIndex(exact)
        ApproximateIndex.build(exact)  # the remedy that it names
        assert len(ApproximateIndex(exact)) == len(rows)


def test_what_cannot_be_built_or_asked_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = EmbeddingIndex.create(tmp_path / "empty", 16, model="m")
    with pytest.raises(ValueError, match="has 0 entries"):
        ApproximateIndex.build(empty)
    exact = filled(tmp_path / "small", curved(50))
    with pytest.raises(ValueError, match="'ivfpq' needs 9984"):
        ApproximateIndex.build(exact, "ivfpq")
    with pytest.raises(ValueError, match="kind='flat'"):
        ApproximateIndex.build(exact, "flat")
    with pytest.raises(FileNotFoundError, match=r"ApproximateIndex\.build"):
        ApproximateIndex(exact)
    approximate = ApproximateIndex.build(exact)
    assert approximate.search(torch.ones(0, 16)).rows.shape == (0, 10)
    assert approximate.search(torch.ones(1, 16), 99).rows.sort().values.tolist() == [list(range(50))]
    with pytest.raises(ValueError, match="hold NaN"):
        approximate.search(torch.full((1, 16), torch.nan))
    with pytest.raises(ValueError, match=r"shape \(1, 4\)"):
        approximate.search(torch.ones(1, 4))
    with pytest.raises(ValueError, match="k=0"):
        approximate.search(torch.ones(1, 16), 0)
    with pytest.raises(ValueError, match="at least one query"):
        approximate.recall_at(5, torch.ones(0, 16))
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"pip install 'monai-medclip\[faiss\]'"):
        ApproximateIndex(exact)
