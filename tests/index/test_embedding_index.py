"""The index: as exact as a float32 search over all, appended to without loss, refusing what does not belong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from monai_medclip.index import EmbeddingIndex
from monai_medclip.index.rounded import _by_float


def crowded(count: int, width: int = 64, *, spread: float, seed: int = 0) -> Tensor:
    """Embeddings around one direction, as those of images of one kind are: their cosines hardly differ."""
    generator = torch.Generator().manual_seed(seed)
    middle = F.normalize(torch.randn(width, generator=generator), dim=0)
    return F.normalize(middle + spread * torch.randn(count, width, generator=generator), dim=1)


def records(count: int, first: int = 0) -> list[dict[str, object]]:
    return [{"id": f"study{first + number}", "view": "frontal ä", "n": number} for number in range(count)]


@pytest.mark.parametrize("spread", [1.0, 0.05, 0.005])
def test_it_finds_what_a_float32_search_over_all_finds(tmp_path: Path, spread: float) -> None:
    rows, queries = crowded(3000, spread=spread), crowded(37, spread=spread, seed=1)
    index = EmbeddingIndex.create(tmp_path / "index", 64, model="m")
    index.add(rows * 3, records(3000), model="m")
    found = EmbeddingIndex(tmp_path / "index").search(queries * 2, 10)
    cosines = queries.double() @ rows.double().T
    scores, best = torch.sort(cosines, dim=1, descending=True, stable=True)
    assert found.rows.shape == (37, 10)
    torch.testing.assert_close(found.scores.double(), scores[:, :10], atol=1e-6, rtol=0)
    swapped = found.rows != best[:, :10]  # where float32 itself cannot tell
    assert float(swapped.float().mean()) < 0.02
    torch.testing.assert_close(cosines.gather(1, found.rows), scores[:, :10], atol=1e-6, rtol=0)


def test_without_the_integer_product_the_answer_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = EmbeddingIndex.create(tmp_path, 64, model="m")
    index.add(crowded(3000, spread=0.05), records(3000), model="m")
    queries = crowded(5, spread=0.05, seed=1)
    found = index.search(queries)
    monkeypatch.setattr("monai_medclip.index.rounded._product", lambda width: _by_float)
    for mine, its in zip(index.search(queries), found, strict=True):
        assert torch.equal(mine, its)


def test_equal_entries_come_in_the_order_in_which_they_were_added(tmp_path: Path) -> None:
    index = EmbeddingIndex.create(tmp_path, 4, model="m")
    index.add(torch.ones(5, 4), records(5), model="m")
    found = index.search(torch.ones(1, 4), 9)
    assert found.rows.tolist() == [[0, 1, 2, 3, 4]]
    assert found.scores.tolist() == [pytest.approx([1.0] * 5)]


def test_appending_is_building_at_once(tmp_path: Path) -> None:
    rows = crowded(300, spread=0.5)
    whole = EmbeddingIndex.create(tmp_path / "whole", 64, model="m")
    whole.add(rows, records(300), model="m")
    EmbeddingIndex.create(tmp_path / "parts", 64, model="m")
    for first in range(0, 300, 100):
        EmbeddingIndex(tmp_path / "parts").add(rows[first : first + 100], records(100, first), model="m")
    parts = EmbeddingIndex(tmp_path / "parts")
    assert len(parts) == len(whole) == 300
    for mine, its in zip(parts.search(rows[:5]), whole.search(rows[:5]), strict=True):
        assert torch.equal(mine, its)
    assert parts.records([299, 0, 100]) == [records(100, 200)[99], records(1)[0], records(1, 100)[0]]
    assert [one["view"] for one in parts.records(torch.tensor([7]))] == ["frontal ä"]
    torch.testing.assert_close(parts.vectors([299, 0]), rows[[299, 0]])
    torch.testing.assert_close(torch.from_numpy(parts.embeddings().copy()), rows)
    with pytest.raises(IndexError, match="rows 0 to 299"):
        parts.vectors([300])


def test_what_a_killed_append_left_is_ignored_and_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = EmbeddingIndex.create(tmp_path, 64, model="m")
    rows = crowded(30, spread=0.5)
    index.add(rows[:10], records(10), model="m")
    with monkeypatch.context() as patched:
        patched.setattr("monai_medclip.index.embedding_index._write_header", _killed)
        with pytest.raises(KeyboardInterrupt):
            EmbeddingIndex(tmp_path).add(-rows[10:30], records(20, 10), model="m")
    again = EmbeddingIndex(tmp_path)
    assert len(again) == 10
    again.add(rows[10:20], records(10, 10), model="m")
    assert EmbeddingIndex(tmp_path).search(rows[15:16], 1).rows.tolist() == [[15]]
    assert EmbeddingIndex(tmp_path).records([19])[0]["id"] == "study19"


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_small_appends_read_the_stored_ids_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    EmbeddingIndex.create(tmp_path, 8, model="m").add(torch.ones(50, 8), records(50), model="m")
    index, parsed = EmbeddingIndex(tmp_path), []
    monkeypatch.setattr(
        EmbeddingIndex, "_read_ids", lambda self, its=EmbeddingIndex._read_ids: parsed.append(1) or its(self)
    )
    for number in range(50, 60):
        index.add(torch.ones(1, 8), records(1, number), model="m")
    assert parsed == [1]
    for known in (3, 57):  # stored before, and added here
        with pytest.raises(ValueError, match=f"'study{known}' is in the index already"):
            index.add(torch.ones(1, 8), records(1, known), model="m")


def test_two_writers_do_not_overwrite_each_other(tmp_path: Path) -> None:
    first = EmbeddingIndex.create(tmp_path, 8, model="m")
    second = EmbeddingIndex(tmp_path)
    first.add(torch.ones(1, 8), records(1), model="m")
    with pytest.raises(RuntimeError, match="open it again"):
        second.add(torch.ones(1, 8), records(1, 1), model="m")
    assert [one["id"] for one in EmbeddingIndex(tmp_path).records([0])] == ["study0"]


def test_adding_nothing_changes_nothing(tmp_path: Path) -> None:
    index = EmbeddingIndex.create(tmp_path, 8, model="m")
    index.add(torch.zeros(0, 8), [], model="m")
    assert len(index) == len(EmbeddingIndex(tmp_path)) == 0


def test_an_index_of_another_format_is_refused(tmp_path: Path) -> None:
    EmbeddingIndex.create(tmp_path, 8, model="m")
    header = (tmp_path / "index.json").read_text()
    (tmp_path / "index.json").write_text(header.replace('"format": 2', '"format": 1'))
    with pytest.raises(ValueError, match="another format than 2"):
        EmbeddingIndex(tmp_path)


def test_a_scan_that_cannot_be_trusted_is_no_result(tmp_path: Path) -> None:
    index = EmbeddingIndex.create(tmp_path, 64, model="m")
    index.add(crowded(100, spread=0.5), records(100), model="m")
    rounded = (tmp_path / "int8.bin").read_bytes()
    (tmp_path / "int8.bin").write_bytes(rounded[64:] + rounded[:64])  # every entry moved by one
    with pytest.raises(RuntimeError, match=r"int8\.bin does not agree with float32\.bin"):
        EmbeddingIndex(tmp_path).search(crowded(5, spread=0.5, seed=1))


def test_an_empty_index_finds_nothing(tmp_path: Path) -> None:
    index = EmbeddingIndex.create(tmp_path, 8, model="m")
    assert index.search(torch.ones(2, 8)).rows.shape == (2, 0)
    assert index.records([]) == []


def test_what_does_not_belong_is_refused_whole(tmp_path: Path) -> None:
    index = EmbeddingIndex.create(tmp_path / "index", 8, model="m")
    index.add(torch.ones(1, 8), records(1), model="m")
    one = torch.ones(1, 8)
    with pytest.raises(ValueError, match="of 'm', these are of 'n'"):
        index.add(one, records(1, 1), model="n")
    with pytest.raises(ValueError, match="'study0' is in the index already"):
        index.add(torch.ones(2, 8), [*records(1, 1), *records(1)], model="m")
    with pytest.raises(ValueError, match="needs an 'id'"):
        index.add(one, [{"name": "x"}], model="m")
    with pytest.raises(ValueError, match="1 embeddings and 2 records"):
        index.add(one, records(2, 1), model="m")
    with pytest.raises(ValueError, match="vector of zeros"):
        index.add(0 * one, records(1, 1), model="m")
    with pytest.raises(ValueError, match="hold NaN"):
        index.search(one * torch.nan)
    with pytest.raises(ValueError, match=r"shape \(1, 4\)"):
        index.search(torch.ones(1, 4))
    with pytest.raises(ValueError, match="k=0"):
        index.search(one, 0)
    assert len(EmbeddingIndex(tmp_path / "index")) == 1
    with pytest.raises(FileExistsError, match="not empty"):
        EmbeddingIndex.create(tmp_path / "index", 8, model="m")
    with pytest.raises(FileNotFoundError, match=r"EmbeddingIndex\.create"):
        EmbeddingIndex(tmp_path / "elsewhere")
    with (tmp_path / "index" / "float32.bin").open("rb+") as file:
        file.truncate(5)
    with pytest.raises(ValueError, match="it is damaged"):
        EmbeddingIndex(tmp_path / "index")
