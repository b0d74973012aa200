"""The phantom's report: findings said in varied words, absent findings denied, from one random stream per finding."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from monai_medclip.data.phantom_anatomy import Anatomy
from monai_medclip.data.phantom_lesions import FINDING_NAMES, Lesion
from monai_medclip.data.phantom_words import (
    ABSENT,
    EXTENT,
    IMPRESSION,
    NORMAL_IMPRESSION,
    OPENING,
    PAIRS_ABSENT,
    PRESENT,
    UNREMARKABLE,
    ZONES,
)

__all__ = ["write_report"]

_SAID = 0.72  # how often a single absent finding is denied
_PAIRED = 0.6  # how often two absent findings that go together are denied in one sentence
_Keyed = tuple[float, str]  # where a sentence goes, and the sentence


def write_report(anatomy: Anatomy, lesions: Collection[Lesion], seed: tuple[int, int]) -> str:
    """A report with the sections FINDINGS and IMPRESSION.

    Each finding's sentences come from its own random stream: without one finding, the other sentences stay.

    Args:
        anatomy: the patient (for the cardiothoracic ratio).
        lesions: what the report tells; every other finding is absent.
        seed: (phantom seed, patient index).
    """
    present = {lesion.finding: lesion for lesion in lesions}
    streams = {name: np.random.default_rng([*seed, 30 + k]) for k, name in enumerate(FINDING_NAMES)}
    sentences: list[_Keyed] = []
    summary: list[_Keyed] = []
    for name, lesion in present.items():
        words, rng = _words(anatomy, lesion, streams[name]), streams[name]
        sentences.append((float(rng.random()) - 0.25, _pick(PRESENT[name], rng).format(**words)))
        summary.append((float(rng.random()), _capital(_pick(IMPRESSION[name], rng).format(**words))))
    absent = [name for name in FINDING_NAMES if name not in present]
    sentences += _denials(absent, streams, np.random.default_rng([*seed, 40]))
    general = np.random.default_rng([*seed, 41])
    closing = _pick(NORMAL_IMPRESSION, general)
    if general.random() < 0.4:
        sentences.append((-1.0, _pick(OPENING, general)))
    for sentence in general.choice(UNREMARKABLE, size=general.integers(0, 3), replace=False):
        sentences.append((float(general.random()), str(sentence)))
    if not sentences:
        sentences.append((0.0, "The lungs are clear."))
    findings = " ".join(text for _, text in sorted(sentences))
    return f"FINDINGS: {findings} IMPRESSION: {' '.join(text for _, text in sorted(summary)) or closing}"


def _denials(
    absent: Collection[str], streams: dict[str, np.random.Generator], pairs: np.random.Generator
) -> list[_Keyed]:
    said: list[_Keyed] = []
    done: set[str] = set()
    for pair, wordings in PAIRS_ABSENT.items():
        together, place, words = pairs.random() < _PAIRED, float(pairs.random()), _pick(wordings, pairs)
        if together and set(pair) <= set(absent):
            said.append((place, words))
            done.update(pair)
    for name in absent:
        rng = streams[name]
        if rng.random() < _SAID and name not in done:
            said.append((float(rng.random()), _pick(ABSENT[name], rng)))
    return said


def _words(anatomy: Anatomy, lesion: Lesion, rng: np.random.Generator) -> dict[str, str]:
    """What the sentences may fill in."""
    zone = _pick(ZONES[lesion.zone], rng) if lesion.zone else ""
    place = f"{lesion.side} {zone}".strip()
    size = f"{lesion.size_mm:.0f} mm" if rng.random() < 0.6 else f"{lesion.size_mm / 10:.1f} cm"
    small, large = EXTENT.get(lesion.finding, (0.0, 0.0))
    extent = "small" if lesion.size_mm < small else "large" if lesion.size_mm > large else "moderate"
    ratio = f"{lesion.size_mm / 2 / anatomy.thorax_half_width:.2f}"
    words = {"side": lesion.side, "place": place, "size": size, "extent": extent, "ratio": ratio}
    return words | {key.capitalize(): value.capitalize() for key, value in words.items()}


def _pick(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
