"""A bad case stops the run by name, or is listed; it is never lost and never met in the middle of an epoch."""

from __future__ import annotations

import csv
import pickle

import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.transforms import Compose, MapTransform, RandGaussianNoised
from PIL import Image

from monai_medclip.transforms import (
    BadInputError,
    CheckedDataset,
    CleanReportd,
    LoadRadiographd,
    bad_input_cause,
)


@pytest.fixture
def items(tmp_path) -> list[dict[str, str]]:
    """Five items: two good, a constant film, a missing film, an empty report."""
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for name in ("a", "b", "e"):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    Image.fromarray(pixels * 0).save(tmp_path / "c.png")
    texts = {"a": "Normal.", "b": "Nodule.", "c": "Mass.", "d": "Effusion.", "e": "  XXXX. "}
    return [{"id": n, "image": str(tmp_path / f"{n}.png"), "text": text} for n, text in texts.items()]


def pipeline() -> Compose:
    return Compose([LoadRadiographd("image"), CleanReportd("text"), RandGaussianNoised("image", prob=1.0)])


@pytest.mark.parametrize("cache_rate", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("num_workers", [1, 3])
def test_bad_items_are_skipped_and_listed(tmp_path, items, cache_rate, num_workers):
    listing = tmp_path / "out" / "rejected.csv"
    dataset = CheckedDataset(
        items,
        pipeline(),
        on_error="skip",
        rejected_csv=listing,
        cache_rate=cache_rate,
        num_workers=num_workers,
        progress=False,
    )
    assert [item["id"] for item in dataset] == ["a", "b"]
    assert not torch.equal(dataset[0]["image"], dataset[0]["image"])  # random transforms still run each time
    rows = list(csv.DictReader(listing.open()))
    assert [row["id"] for row in rows] == ["c", "d", "e"]
    assert [row["file"] for row in rows] == [item["image"] for item in items[2:]]
    assert ["constant" in rows[0]["reason"], "no such file" in rows[1]["reason"], "empty" in rows[2]["reason"]]
    assert all(row["remedy"] for row in rows)
    assert [rejection.id for rejection in dataset.rejected] == ["c", "d", "e"]
    CheckedDataset(items, pipeline(), on_error="skip", rejected_csv=listing, progress=False)
    assert len(list(csv.DictReader(listing.open()))) == 3  # not listed twice


def test_deterministic_transforms_run_once(items):
    calls = []

    class Count(LoadRadiographd):
        def __call__(self, data):
            calls.append(data["id"])
            return super().__call__(data)

    dataset = CheckedDataset(items[:2], [Count("image")], progress=False)
    assert len(dataset) == 2
    _ = [dataset[i] for i in (0, 1, 0)]
    assert calls == ["a", "b"]


def test_by_default_the_first_bad_item_raises_by_name(items):
    with pytest.raises(BadInputError, match=r"c\.png: the image is constant"):
        CheckedDataset(items, pipeline(), progress=False)


def test_a_bug_is_not_bad_input(tmp_path, items):
    class Broken(MapTransform):
        def __call__(self, data):
            raise KeyError("a programming error")

    transform = Compose([LoadRadiographd("image"), Broken("image")])
    with pytest.raises(RuntimeError, match="Broken"):
        CheckedDataset(items, transform, on_error="skip", rejected_csv=tmp_path / "r.csv", progress=False)
    assert not (tmp_path / "r.csv").exists()


def test_nothing_left_is_an_error(tmp_path, items):
    with pytest.raises(ValueError, match="All 1 items"):
        CheckedDataset(items[2:3], pipeline(), on_error="skip", rejected_csv=tmp_path / "r.csv", progress=False)


@pytest.mark.parametrize("options", [{"on_error": "skip"}, {"on_error": "ignore"}])
def test_skipping_needs_a_place_to_say_so(items, options):
    with pytest.raises(ValueError, match="on_error"):
        CheckedDataset(items, pipeline(), **options)


def test_compose_keeps_the_cause_and_it_survives_pickling(items):
    with pytest.raises(RuntimeError) as caught:
        pipeline()(items[2])
    error = bad_input_cause(caught.value)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.file, copy.reason, copy.remedy) == (error.file, error.reason, error.remedy)
    assert bad_input_cause(ValueError("other")) is None


def test_batches_come_out_of_a_loader(items):
    dataset = CheckedDataset(items[:2], [LoadRadiographd("image")], progress=False)
    assert next(iter(DataLoader(dataset, batch_size=2)))["image"].shape == (2, 1, 8, 8)


@pytest.mark.parametrize("cache_rate", [1.0, 0.5, 0.0])
def test_a_compose_in_a_compose_is_cached_up_to_its_first_random_transform(items, cache_rate):
    calls = []

    class Count(CleanReportd):
        def __call__(self, data):
            calls.append(data["id"])
            return super().__call__(data)

    inner = Compose([LoadRadiographd("image"), Compose([Count("text")])])
    nested = Compose([inner, Compose([]), Compose([RandGaussianNoised("image", prob=1.0)])])
    dataset = CheckedDataset(items[:2], nested, cache_rate=cache_rate, progress=False)
    assert calls == ["a", "b"]  # every item is checked, also those that are not kept
    assert not torch.equal(dataset[0]["image"], dataset[0]["image"])
    assert len(calls) == 2 + 2 * (cache_rate == 0.0)


@pytest.mark.parametrize("cache_rate", [1.0, 0.5, 0.0])
def test_prepared_items_are_those_before_the_first_random_transform(items, cache_rate):
    dataset = CheckedDataset(items[:2], pipeline(), cache_rate=cache_rate, progress=False)
    first, again = list(dataset.prepared()), list(dataset.prepared())
    assert [item["id"] for item in first] == ["a", "b"]
    for one, other in zip(first, again):
        assert torch.equal(one["image"], other["image"])
        assert 0 <= one["image"].min() < one["image"].max() <= 1  # noise of standard deviation 0.1 would leave 0 to 1
    first[0]["image"] = None  # a copy of the item: what is cached stays
    assert next(iter(dataset.prepared()))["image"] is not None


def test_both_lists_of_what_was_rejected_have_the_same_columns(tmp_path, items):
    from monai_medclip.data import Rejected, read_rejected
    from monai_medclip.data import write_rejected as write_rows

    listing = write_rows([Rejected("manifest.csv", 7, "the text is empty.")], tmp_path / "rejected.csv")
    CheckedDataset(items, pipeline(), on_error="skip", rejected_csv=listing, progress=False)
    found = read_rejected(listing)
    with listing.open(newline="") as stream:
        assert all(row["notice"].startswith("Research use only") for row in csv.DictReader(stream))
    assert [(one.row, one.id) for one in found] == [(7, ""), (0, "c"), (0, "d"), (0, "e")]
