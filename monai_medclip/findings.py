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
]


class Finding(NamedTuple):
    """A finding and the sentences that assert or deny it."""

    name: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]


def _chest(name: str, *positive: str) -> Finding:
    return Finding(name, positive, (f"No {name}.", f"There is no {name}.", f"No evidence of {name}."))


PHANTOM_FINDINGS: tuple[Finding, ...] = (
    _chest(
        "nodule",
        "There is a nodule.",
        "Pulmonary nodule in the lung.",
        "A small rounded nodule is seen.",
        "Solitary pulmonary nodule.",
        "A well-defined nodular opacity.",
    ),
    _chest(
        "mass",
        "There is a mass.",
        "Large lung mass.",
        "A mass is seen in the lung.",
        "Lung mass with lobulated margins.",
    ),
    _chest(
        "pleural effusion",
        "There is a pleural effusion.",
        "Pleural effusion with blunting of the costophrenic angle.",
        "Layering pleural fluid.",
        "The costophrenic angle is blunted by an effusion.",
    ),
    _chest(
        "consolidation",
        "There is a consolidation.",
        "Airspace consolidation in the lung.",
        "Patchy consolidation is seen, suspicious for pneumonia.",
        "Focal airspace opacity.",
    ),
    _chest(
        "cardiomegaly",
        "There is cardiomegaly.",
        "The heart is enlarged.",
        "Enlarged cardiac silhouette.",
        "Cardiac enlargement.",
    ),
    _chest(
        "pneumothorax",
        "There is a pneumothorax.",
        "Pneumothorax with a visible pleural line.",
        "Apical pneumothorax is seen.",
        "The lung is partly collapsed by a pneumothorax.",
    ),
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
        ("Poorly defined margin.", "Nearly poorly defined margin."),
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
    """Findings by name, with generic prompts for names that are not in the list.

    Args:
        names: finding names such as ``"pleural effusion"``.
        known: findings whose prompts are used when the name matches.
    """
    by_name = {finding.name: finding for finding in known}
    return tuple(by_name.get(name) or _chest(name, f"There is {name}.", f"{name}.") for name in names)
