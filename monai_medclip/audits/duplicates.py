"""Was it seen before: patients, images, features and texts of the test items that training or validation hold too."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from monai_medclip.audits.result import AuditResult
from monai_medclip.data import Leak, find_leaks, text_key

__all__ = ["duplicates"]

Item = Mapping[str, Any]

EXAMPLES = 3  # pairs named per rule
MANY_TEXTS = 0.5  # of the test items: from here on a text in the test set has rather been seen than not
SHARED = ("patient", "identical image", "near-duplicate image", "identical features")  # rules of `data.find_leaks`
_KEYS = {"patient": "patient_id", "identical features": "features_sha256"}
_NOUNS = {
    "patient": "share a patient",
    "identical image": "are the same image",
    "near-duplicate image": "are nearly the same image",
    "identical features": "have the same features",
}


class _Found(NamedTuple):
    """What one rule found."""

    rule: str
    pairs: int | None  # with a test item; None if nobody looked
    other_pairs: int | None  # between the other splits
    concerned: int | None  # test items
    compared: int  # test items that have what the rule compares
    examples: tuple[str, ...]

    @property
    def share(self) -> float | None:
        """Of the test items compared, 0 to 1."""
        return self.concerned / self.compared if self.compared and self.concerned is not None else None


def duplicates(
    splits: Mapping[str, Sequence[Item]],
    *,
    near_duplicate_bits: int | None = 40,
    cache: str | Path | None = None,
    workers: int = 1,
) -> AuditResult:
    """What test items share with items of other splits.

    It warns if any patient, image (identical pixels or nearly so) or features lie on two splits, whichever they are,
    or if at least half of the test items have a text that occurs word for word (but for case and white space) in
    training. Templated texts all do: retrieval must then count equal texts as one.

    Args:
        splits: split -> its items, with ``id``, ``patient_id`` and, if any, ``image``, ``features_sha256``, ``text``;
            ``"test"`` is judged. Without ``"train"``, texts are looked for on the splits that there are.
        near_duplicate_bits: see `monai_medclip.data.check_splits`; None compares files byte for byte, nothing nearly.
        cache: ``.npz`` of fingerprints, the one of `monai_medclip.data.partition` serves.
        workers: threads that read the images.

    Returns:
        A row per rule: rule, pairs (of a test item and an item of another split; by the rule "patient", of a patient
        and another split; None if nobody looked), test_items (concerned), share (0 to 1 of the items compared, None if
        there are none), compared (test items that have what the rule needs), other_pairs (between the other splits),
        examples (ids and splits of at most three pairs).

    Raises:
        ValueError: no test items, no other split, or an image that cannot be read.
    """
    if not splits.get("test") or not any(items for name, items in splits.items() if name != "test"):
        sizes = {name: len(items) for name, items in splits.items()}
        raise ValueError(f"splits have {sizes} items: give 'test' and one other split, both with items.")
    placed = [{**item, "split": name} for name, items in splits.items() for item in items]
    leaks = find_leaks(placed, near_duplicate_bits=near_duplicate_bits, cache=cache, workers=workers)
    looked = SHARED if near_duplicate_bits is not None else tuple(rule for rule in SHARED if "near" not in rule)
    found = [_of_leaks(rule, [leak for leak in leaks if leak.rule == rule], placed, rule in looked) for rule in SHARED]
    texts = [_of_texts("identical text", placed)]
    if splits.get("train"):
        read = [item for item in placed if item["split"] in ("train", "test")]
        texts.append(_of_texts("identical text in train", read))
    seen = texts[-1]
    others = [name for name, items in splits.items() if name != "test" and items]
    sentences = (_verdict(found, len(splits["test"]), others), _on_patients(placed), _on_texts(seen))
    return AuditResult(
        "duplicates",
        " ".join(sentence for sentence in sentences if sentence),
        tuple(_row(one) for one in (*found, *texts)),
        any(one.pairs or one.other_pairs for one in found) or (seen.share or 0) >= MANY_TEXTS,
    )


def _of_leaks(rule: str, leaks: Sequence[Leak], items: Sequence[Item], looked: bool) -> _Found:
    """What `data.find_leaks` found by one rule, and which test items it concerns."""
    tests = [item for item in items if item["split"] == "test"]
    key = _KEYS.get(rule, "image")
    compared = sum(bool(item.get(key)) for item in tests)
    if not looked:
        return _Found(rule, None, None, None, compared, ())
    with_test = [leak for leak in leaks if "test" in (leak.first_split, leak.second_split)]
    if rule == "patient":  # one leak per patient and pair of splits, but all of the patient's items are concerned
        elsewhere = {str(item["patient_id"]) for item in items if item["split"] != "test"}
        concerned = sum(str(item["patient_id"]) in elsewhere for item in tests)
    else:
        concerned = len(_test_ids(with_test))
    examples = tuple(f"{leak.first} ({leak.first_split}) = {leak.second} ({leak.second_split})" for leak in with_test)
    return _Found(rule, len(with_test), len(leaks) - len(with_test), concerned, compared, examples[:EXAMPLES])


def _test_ids(leaks: Collection[Leak]) -> set[str]:
    sides = [(one.first, one.first_split) for one in leaks] + [(one.second, one.second_split) for one in leaks]
    return {identity for identity, split in sides if split == "test"}


def _of_texts(rule: str, items: Sequence[Item]) -> _Found:
    """Texts of test items that other splits hold; counted, since templated texts have pairs by the million."""
    holders: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))  # text -> split -> ids
    for item in items:
        if str(item.get("text") or "").strip():
            holders[text_key(str(item["text"]))][str(item["split"])].append(str(item["id"]))
    pairs: Counter[bool] = Counter()  # with a test item or not
    for sides in holders.values():
        for one, other in combinations(sides, 2):
            pairs["test" in (one, other)] += len(sides[one]) * len(sides[other])
    shared = [sides for sides in holders.values() if "test" in sides and len(sides) > 1]
    shared.sort(key=lambda sides: -len(sides["test"]))
    compared = sum(len(sides["test"]) for sides in holders.values() if "test" in sides)
    concerned = sum(len(sides["test"]) for sides in shared)
    examples = tuple(_told(sides) for sides in shared[:EXAMPLES])
    return _Found(rule, pairs[True], pairs[False], concerned, compared, examples)


def _told(sides: Mapping[str, Sequence[str]]) -> str:
    """The first item of each split with one text, and how many there are: the text itself stays where it is."""
    return " = ".join(f"{ids[0]} ({name}, {len(ids)} such)" for name, ids in sides.items())


def _row(one: _Found) -> dict[str, Any]:
    return {
        "rule": one.rule,
        "pairs": one.pairs,
        "test_items": one.concerned,
        "share": one.share,
        "compared": one.compared,
        "other_pairs": one.other_pairs,
        "examples": "; ".join(one.examples),
    }


def _verdict(found: Sequence[_Found], tests: int, others: Sequence[str]) -> str:
    looked = [one for one in found if one.pairs is not None and one.compared]
    shared = [f"{one.concerned} of {one.compared} {_NOUNS[one.rule]}" for one in looked if one.concerned]
    elsewhere, apart = " or ".join(others), sum(one.other_pairs or 0 for one in found)
    if shared:
        said = f"Of the test items {', '.join(shared)} with an item of {elsewhere}: their figures are no test."
    else:
        rules = ", ".join(one.rule for one in looked)
        said = f"None of the {tests} test items has its like in {elsewhere} by these rules: {rules}."
    return said + (f" {apart} such pair(s) lie between the other splits." if apart else "")


def _on_patients(items: Sequence[Item]) -> str:
    """Some collections name no patients, and their readers take each image for one."""
    alone = len({str(item["patient_id"]) for item in items}) == len(items)
    return "Each item is a patient of its own, so that the patient rule could find nothing." if alone else ""


def _on_texts(texts: _Found) -> str:
    if texts.share is None:
        return "No test item has a text to compare."
    where = "the training items" if texts.rule.endswith("train") else "another split"
    share = f"{texts.concerned} of {texts.compared} test items ({texts.share:.0%})"
    said = f"{share} have a text that occurs word for word in {where}"
    if texts.share >= MANY_TEXTS:
        return f"{said}: retrieval must count equal texts as one, and a model that reads texts has read most of these."
    return f"{said}."
