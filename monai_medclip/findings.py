"""Names of findings and the sentences that ask for them: prompt ensembles, their negations, and the normal study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = [
    "CHEST_FINDINGS",
    "DERMOSCOPY_FINDINGS",
    "NODULE_FINDINGS",
    "NORMAL_PROMPTS",
    "PHANTOM_FINDINGS",
    "PNEUMONIA_FINDINGS",
    "Finding",
    "findings_named",
    "lesion_classes",
]


class Finding(NamedTuple):
    """A finding and the sentences that assert or deny it."""

    name: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]


_ZONES = (
    "Right upper lobe",
    "Left upper lung zone",
    "Right mid lung zone",
    "Left mid lung",
    "Right lower lobe",
    "Left lung base",
)


def _chest(name: str, *positive: str) -> Finding:
    return Finding(name, positive, (f"No {name}.", f"There is no {name}.", f"No evidence of {name}."))


def _in_each_zone(name: str) -> tuple[str, ...]:
    return tuple(f"{zone} {name}." for zone in _ZONES)


# Worded as impressions are, and averaged over sides and zones, so that no place is part of the question.
PHANTOM_FINDINGS: tuple[Finding, ...] = (
    _chest("nodule", "Pulmonary nodule.", *_in_each_zone("nodule")),
    _chest("mass", "Lung mass.", *_in_each_zone("mass")),
    _chest(
        "pleural effusion",
        "Right pleural effusion.",
        "Left pleural effusion.",
        "Right pleural fluid.",
        "Left pleural fluid.",
    ),
    _chest("consolidation", "Consolidation.", *_in_each_zone("consolidation"), *_in_each_zone("pneumonia")),
    _chest("cardiomegaly", "Cardiomegaly.", "Enlarged heart.", "Cardiac enlargement."),
    _chest("pneumothorax", "Right pneumothorax.", "Left pneumothorax."),
)

CHEST_FINDINGS = PHANTOM_FINDINGS

NORMAL_PROMPTS: tuple[str, ...] = (
    "Normal chest radiograph.",
    "No acute cardiopulmonary abnormality.",
    "The lungs are clear.",
)

# In the words in which LIDC-IDRI's readers rate a nodule; the order is that of `data.LIDC_FINDINGS`.
NODULE_FINDINGS: tuple[Finding, ...] = (
    Finding(
        "malignant",
        ("Malignancy rated highly suspicious.", "Malignancy rated moderately suspicious."),
        ("Malignancy rated highly unlikely.", "Malignancy rated moderately unlikely."),
    ),
    Finding(
        "calcification",
        ("Solid calcification.", "Central calcification.", "A lung nodule with solid calcification."),
        ("No calcification.", "A lung nodule with no calcification."),
    ),
    Finding(
        "subsolid",
        ("Ground-glass lung nodule.", "Part-solid lung nodule.", "Mostly ground-glass lung nodule."),
        ("Solid lung nodule.",),
    ),
    Finding(
        "poorly defined margin",
        ("Poorly defined margin.", "Rather poorly defined margin."),
        ("Sharp margin.", "Nearly sharp margin."),
    ),
    Finding("spiculation", ("Marked spiculation.", "Medium spiculation."), ("No spiculation.",)),
)

PNEUMONIA_FINDINGS: tuple[Finding, ...] = (
    Finding(
        "viral pneumonia",
        (
            "Viral pneumonia.",
            "A chest radiograph of viral pneumonia.",
            "Chest radiograph of a child with viral pneumonia.",
        ),
        (
            "Bacterial pneumonia.",
            "A chest radiograph of bacterial pneumonia.",
            "Chest radiograph of a child with bacterial pneumonia.",
        ),
    ),
)

DERMOSCOPY_FINDINGS: tuple[Finding, ...] = (
    Finding(
        "malignant",
        ("Melanoma.", "Malignant skin lesion.", "Dermoscopic image of a malignant skin lesion, melanoma."),
        (
            "Benign nevus.",
            "Benign melanocytic skin lesion, nevus.",
            "Dermoscopic image of a benign melanocytic skin lesion, nevus.",
        ),
    ),
)


def findings_named(names: Sequence[str], known: Sequence[Finding] = CHEST_FINDINGS) -> tuple[Finding, ...]:
    """Findings by name, with generic prompts for names that are not in the list; a sentence is asked as it stands.

    Args:
        names: finding names such as ``"pleural effusion"``, or sentences, which end in a period.
        known: findings whose prompts are used when the name matches.
    """
    by_name = {finding.name: finding for finding in known}
    return tuple(by_name.get(name) or _asked(name) for name in names)


def lesion_classes(diagnoses: Sequence[str]) -> tuple[Finding, ...]:
    """Skin lesions to choose one from, asked as captions begin: ``Dermoscopic image of clark nevus.``

    Args:
        diagnoses: names, such as `data.DERM7PT_DIAGNOSES`.
    """
    return tuple(
        Finding(
            name, (f"Dermoscopic image of {name}.", f"{name[:1].upper()}{name[1:]}.", f"A skin lesion: {name}."), ()
        )
        for name in diagnoses
    )


def _asked(words: str) -> Finding:
    if words.endswith((".", "?", "!")):
        return Finding(words, (words,), ())
    return _chest(words, f"There is {words}.", f"{words}.")
