"""A batch's memory: what was written is read back, a torn line is dropped, and another batch is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_medclip.engines.dicom_ledger import DONE, FAILED, BatchRow, Ledger

SETTINGS = {"model_version": "abc", "prompts": ("nodule",), "kinds": ("report",)}
ROW = BatchRow("1.1", "1.1.1", "1.1.1.1", "", "film.dcm", DONE, prompt="Größe", logit=0.1 + 0.2, probability=None)


def ledger(folder: Path, *, resume: bool = True, **settings: object) -> Ledger:
    return Ledger(folder / "ledger.jsonl", {**SETTINGS, **settings}, resume=resume)


def test_what_was_written_is_read_back_equal(tmp_path: Path) -> None:
    first = ledger(tmp_path, resume=False)
    assert first.begin("a") is False
    first.end("a", [ROW, ROW._replace(prompt="mass")])
    second = ledger(tmp_path)
    assert second.rows == [ROW, ROW._replace(prompt="mass")]
    assert (second.is_done("a"), second.is_done("b")) == (True, False)


def test_a_case_that_was_begun_is_known_and_a_failed_one_is_not_done(tmp_path: Path) -> None:
    first = ledger(tmp_path)
    first.begin("killed")
    first.end("failed", [ROW._replace(status=FAILED)])
    second = ledger(tmp_path)
    assert (second.begin("killed"), second.begin("failed")) == (True, False)
    assert not second.is_done("killed")
    assert not second.is_done("failed")
    second.end("failed", [ROW])
    assert ledger(tmp_path).rows == [ROW]


@pytest.mark.parametrize("torn", [b'{"ended": "b", "rows', b"\xff", b'{"begun": "b"}'])
def test_a_line_that_a_kill_cut_off_is_dropped(tmp_path: Path, torn: bytes) -> None:
    ledger(tmp_path).end("a", [ROW])
    file = tmp_path / "ledger.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + torn)
    again = ledger(tmp_path)
    assert (list(again.ended), file.read_bytes()) == (["a"], whole)
    assert again.begin("b") is False


def test_a_batch_is_not_written_over(tmp_path: Path) -> None:
    ledger(tmp_path).begin("a")
    with pytest.raises(ValueError, match="add --resume"):
        ledger(tmp_path, resume=False)


@pytest.mark.parametrize("other", [{"prompts": ("mass",)}, {"model_version": "abd"}])
def test_a_batch_that_asked_otherwise_is_not_gone_on_with(tmp_path: Path, other: dict[str, object]) -> None:
    ledger(tmp_path).begin("a")
    with pytest.raises(ValueError, match=f"another {next(iter(other))}.*(nodule|abc)"):
        ledger(tmp_path, **other)


def test_settings_alone_are_no_batch(tmp_path: Path) -> None:
    ledger(tmp_path, prompts=("wrong",))
    assert ledger(tmp_path, resume=False).rows == []
    ledger(tmp_path).begin("a")
    assert ledger(tmp_path).begin("a") is True
