"""Embeddings on disk: those of `embed`, made once, also by a run that was killed, and anew when anything changed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader

from monai_medclip.engines import MissingTextError, embed, embedding_store
from monai_medclip.index import EmbeddingIndex
from monai_medclip.transforms import collate_reports

from .store_cases import Read, case, clip, counted, forwards, patients, store


def cases(folder: Path, count: int = 10) -> list[dict[str, Any]]:
    """No two are alike; the reports of the first two are."""
    words = ["nodule", "mass", "spot", "lump", "clear", "heart", "lungs", "normal"]
    texts = ["Heart.", "heart."] + [f"{words[n % 8]} {words[n // 8]} lungs" for n in range(count - 2)]
    seen = [f"{words[n % 8]} {words[(n + 1 + n // 8) % 8]}" for n in range(count)]
    return [case(folder, f"i{n}", seen[n], texts[n], [n % 2]) for n in range(count)]


def splits_of(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "embeddings").iterdir() if path.is_dir())


def killed_in(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """The nth time that anything is appended to an index, the process dies; images and reports take turns."""
    calls, add = [], EmbeddingIndex.add

    def dying(*arguments: Any, **named: Any) -> None:
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        add(*arguments, **named)

    monkeypatch.setattr(embedding_store, "BLOCK", 4)
    monkeypatch.setattr(EmbeddingIndex, "add", dying)


def test_it_holds_what_embed_gives(tmp_path: Path) -> None:
    asked = store(tmp_path, {"test": patients(tmp_path, "test", 5)}, batch_size=3)
    loader = DataLoader(asked.dataset("test"), batch_size=4, collate_fn=collate_reports)
    expected, found = embed(clip(), loader), asked["test"]
    for field, (one, other) in enumerate(zip(found, expected, strict=True)):
        if field < 4:
            torch.testing.assert_close(one, other)
        else:
            assert one == other


def test_embeddings_are_the_counted_words_and_are_read_back_by_the_next_run(tmp_path: Path) -> None:
    items = [case(tmp_path, "a", "spot lungs", "Heart."), case(tmp_path, "b", "mass", "No lump.", patient_id="q")]
    found = store(tmp_path, {"test": items})["test"]
    assert torch.allclose(found.image, torch.stack([counted("spot lungs"), counted("mass")]), atol=1e-5)
    assert torch.allclose(found.text, torch.stack([counted("heart"), counted("no lump")]), atol=1e-5)
    assert (found.ids, found.patients) == (("a", "b"), ("pa", "q"))
    again = store(tmp_path, {"test": items})
    images, texts = forwards(again.clip.image_encoder), forwards(again.clip.text_encoder)
    assert torch.equal(again["test"].image, found.image)
    assert torch.equal(again["test"].positives, found.positives)
    assert (images, texts) == ([1], [1])  # the first item only, to see that it still comes out the same
    assert again.index("test").records([1])[0]["text"] == "No lump."


def test_the_network_keeps_its_mode(tmp_path: Path) -> None:
    asked = store(tmp_path, {"test": cases(tmp_path, 3)}, clip().train())
    assert not asked["test"].image.requires_grad
    assert asked.clip.training


def test_equal_reports_are_embedded_once(tmp_path: Path) -> None:
    asked = store(tmp_path, {"test": cases(tmp_path)}, batch_size=20)
    texts = forwards(asked.clip.text_encoder)
    found = asked["test"]
    assert texts == [9]  # of ten reports, two of which say the same
    assert torch.equal(found.text[0], found.text[1])
    assert found.positives[0] == found.positives[1]
    assert len(found.positives.unique()) == 9


@pytest.mark.parametrize(("call", "left"), [(1, 10), (2, 10), (3, 6 + 1), (4, 6 + 1), (5, 2 + 1), (6, 2 + 1)])
def test_a_killed_run_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int, left: int
) -> None:
    items = {"test": cases(tmp_path)}
    with monkeypatch.context() as patch:
        killed_in(patch, call)  # odd: before a block's images are written, even: between its images and its reports
        with pytest.raises(KeyboardInterrupt):
            store(tmp_path, items)["test"]
    again = store(tmp_path, items)
    images = forwards(again.clip.image_encoder)
    found, fresh = again["test"], store(tmp_path / "fresh", items)["test"]
    assert sum(images) == left  # and one to see whether the preprocessing is the same
    assert torch.equal(found.image, fresh.image)
    assert torch.equal(found.text, fresh.text)
    assert found.ids == fresh.ids


def test_a_run_that_was_killed_while_it_made_an_index_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = {"test": cases(tmp_path, 3)}
    with monkeypatch.context() as patch:
        killed_in(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            store(tmp_path, items)["test"]
    (header,) = (tmp_path / "embeddings").glob("test-*/image/index.json")
    header.unlink()
    assert len(store(tmp_path, items)["test"].ids) == 3


@pytest.mark.parametrize("killed", [False, True])
def test_another_preprocessing_makes_it_anew_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, killed: bool
) -> None:
    items = {"test": cases(tmp_path)}
    with monkeypatch.context() as patch:
        if killed:
            killed_in(patch, 3)
            with pytest.raises(KeyboardInterrupt):
                store(tmp_path, items)["test"]
        else:
            store(tmp_path, items)["test"]
    with caplog.at_level(logging.WARNING):
        found = store(tmp_path, items, shift=1)["test"]
    assert "made with another preprocessing" in caplog.text
    assert torch.equal(found.image, store(tmp_path / "fresh", items, shift=1)["test"].image)
    assert len(splits_of(tmp_path)) == 1


def test_other_weights_or_items_or_files_get_another_folder(tmp_path: Path) -> None:
    items = cases(tmp_path, 4)
    store(tmp_path, {"test": items})["test"]
    network = clip()
    network.image_projection.weight.data.mul_(-1)
    other = store(tmp_path, {"test": items}, network)["test"]
    assert torch.allclose(other.image[0], -counted("nodule mass"), atol=1e-5)
    assert len(splits_of(tmp_path)) == 2
    store(tmp_path, {"test": [*items[:3], {**items[3], "text": "Normal."}]})["test"]
    store(tmp_path, {"test": [*items[:3], {**items[3], "patient_id": "another"}]})["test"]
    store(tmp_path, {"test": items[:3]})["test"]
    store(tmp_path, {"test": items}, amp=True)["test"]
    assert len(splits_of(tmp_path)) == 6
    case(tmp_path, "i3", "normal heart", "")  # another image under the same name
    changed = store(tmp_path, {"test": items})["test"]
    assert torch.allclose(changed.image[3], counted("normal heart"), atol=1e-5)
    assert len(splits_of(tmp_path)) == 7


def test_items_that_cannot_be_read_are_left_out_and_kept_agrees(tmp_path: Path) -> None:
    items = cases(tmp_path, 5)
    Path(items[0]["image"]).unlink()
    items[3]["text"] = "XXXX"
    asked = store(tmp_path, {"test": items}, on_error="skip")
    assert asked["test"].ids == tuple(item["id"] for item in asked.kept("test")) == ("i1", "i2", "i4")
    assert asked["test"].label[:, 0].tolist() == [1, 0, 0]
    again = store(tmp_path, {"test": items}, on_error="skip")
    assert again["test"].ids == ("i1", "i2", "i4")
    assert torch.equal(again["test"].image, asked["test"].image)


def test_embeddings_that_are_not_finite_name_the_item(tmp_path: Path) -> None:
    items = cases(tmp_path, 4)
    np.save(items[2]["image"], np.full((1, 2, 5), np.nan, np.float32))
    with pytest.raises(ValueError, match=r"1 of 4 embeddings are not finite, first \['i2'\]"):
        store(tmp_path, {"test": items})["test"]


def test_an_empty_or_unknown_split_is_named(tmp_path: Path) -> None:
    asked = store(tmp_path, {"test": [], "train": cases(tmp_path, 2)})
    for split in ("test", "val"):
        with pytest.raises(ValueError, match=rf"no items on the split '{split}', only on \['train'\]"):
            asked[split]
        with pytest.raises(ValueError, match="no items on the split"):
            asked.kept(split)
    with pytest.raises(ValueError, match="space='tokens': choose"):
        store(tmp_path, {}, space="tokens")


def test_sections_are_embedded_together_and_zero_where_a_report_lacks_them(tmp_path: Path) -> None:
    items = [
        case(tmp_path, "a", "spot", "Heart. Spot.", sections={"indication": "Heart.", "findings": "Spot."}),
        case(tmp_path, "b", "mass", "Lungs.", sections={"findings": "Lungs."}),
        case(tmp_path, "c", "mass", "XXXX. Lungs.", sections={"indication": "XXXX.", "findings": "Lungs."}),
    ]
    asked = store(tmp_path, {"test": items})
    found = asked.texts("test", ("indication",))
    assert torch.allclose(found[0], counted("heart"), atol=1e-5)
    assert not found[1].any()
    assert not found[2].any()  # cleaning leaves nothing of it
    both = asked.texts("test", ("indication", "findings"))
    assert torch.allclose(both, torch.stack([counted("heart spot"), counted("lungs"), counted("lungs")]), atol=1e-5)
    whole = asked.texts("test", ("text",))
    assert torch.allclose(whole, asked["test"].text, atol=1e-6)
    with pytest.raises(MissingTextError, match="none of the 3 reports on 'test' has text under impression"):
        asked.texts("test", ("impression",))
    again = store(tmp_path, {"test": items})
    again["test"]
    texts = forwards(again.clip.text_encoder)
    assert torch.equal(again.texts("test", ("indication",)), found)
    assert texts == []  # read from the file


def test_sections_are_embedded_again_when_they_are_read_in_another_way(tmp_path: Path) -> None:
    items = {"test": cases(tmp_path, 3)}
    first = store(tmp_path, items).texts("test", ("text",))

    def without_heart(item: dict[str, Any]) -> dict[str, Any]:
        return Read()({**item, "text": item["text"].lower().replace("heart", "lungs")})

    second = store(tmp_path, items, read_report=without_heart).texts("test", ("text",))
    assert not torch.allclose(first[0], second[0])
    assert torch.allclose(second[0], counted("lungs"), atol=1e-5)


def test_texts_need_a_transform_that_reads_them(tmp_path: Path) -> None:
    asked = store(tmp_path, {"test": cases(tmp_path, 2)}, read_report=None)
    with pytest.raises(ValueError, match="give read_report"):
        asked.texts("test", ("text",))
    found = store(tmp_path, {}).embed_texts(["No spot.", "XXXX", ""])
    assert torch.allclose(found, torch.stack([counted("no spot"), torch.zeros(10), torch.zeros(10)]), atol=1e-5)


def test_the_pooled_space_is_the_encoders_own_at_unit_length(tmp_path: Path) -> None:
    items, network = {"test": cases(tmp_path, 3)}, clip()
    network.image_projection.weight.data.normal_()
    pooled, shared = (store(tmp_path, items, network, space=space) for space in ("pooled", "embedding"))
    assert torch.allclose(pooled["test"].image[0], counted("nodule mass"), atol=1e-5)
    assert not torch.allclose(shared["test"].image[0], counted("nodule mass"), atol=1e-2)
    assert torch.allclose(pooled["test"].text, shared["test"].text)
    assert len(splits_of(tmp_path)) == 2
    shared.require_shared_space("zero-shot")
    with pytest.raises(ValueError, match="zero-shot compares images with texts, and space='pooled'"):
        pooled.require_shared_space("zero-shot")
