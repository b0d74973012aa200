"""The localization audit on explainers that look where they are told to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from monai_medclip.audits.localization import LesionCases, counterfactual_heat, heatmaps_of, localization_rows
from monai_medclip.explainers import CentreBlob, Explainer
from monai_medclip.networks import ZeroShotClassifier

from ..networks.toys import tiny_clip, tokenize

FINDINGS = ("nodule", "mass", "cardiomegaly")


class Brightness(Explainer):
    """The image itself, as every finding's map."""

    name = "brightness"

    def _maps(self, classifier: Any, image: Tensor, context: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return image.expand(-1, 3, -1, -1), classifier(image)


@pytest.fixture(scope="module")
def classifier() -> ZeroShotClassifier:
    return tiny_clip().eval().classifier(FINDINGS, tokenize, rule="name")


def cases(batch: int = 6) -> LesionCases:
    """A bright nodule in every image, a brighter mass in every second one; nobody's heart is large."""
    images, masks = torch.zeros(batch, 1, 32, 32), torch.zeros(batch, 3, 32, 32, dtype=torch.bool)
    masks[:, 0, 4:8, 4:8] = True
    masks[::2, 1, 20:28, 20:28] = True
    images[masks[:, :1]] = 1.0
    images[masks[:, 1:2]] = 2.0
    sizes = np.full((batch, 3), np.nan)
    sizes[:, 0] = np.arange(batch)
    sizes[::2, 1] = 40.0
    return LesionCases(FINDINGS, images, masks, sizes, tuple(f"p{k}" for k in range(batch)))


def test_rows_tell_the_right_lesion_from_another_one(classifier: ZeroShotClassifier) -> None:
    found = cases()
    maps = heatmaps_of(Brightness(), classifier, found.images, batch_size=4, progress=False)
    rows = localization_rows(maps, found, tolerances=(0, 8), focal=("nodule", "mass"))
    assert [row["finding"] for row in rows] == ["nodule"] * 6 + ["mass"] * 3  # what is absent is not judged
    nodules, masses = rows[:6], rows[6:]
    assert [row["pointing_0"] for row in nodules] == [0, 1, 0, 1, 0, 1]  # beside a mass, the mass is brighter
    assert [row["alone"] for row in nodules] == [0, 1, 0, 1, 0, 1]
    assert all(row["pointing_any"] == 1 for row in rows)
    assert all(row["pointing_0"] == 1 for row in masses)
    assert [row["third"] for row in nodules] == [0, 0, 1, 1, 2, 2]
    assert nodules[1]["energy"] == 1
    assert nodules[0]["energy"] == pytest.approx(16 / (16 + 2 * 64))
    assert nodules[0]["patient"] == "p0"


def test_findings_without_a_place_have_no_neighbor_to_be_taken_for(classifier: ZeroShotClassifier) -> None:
    found = cases()
    maps = found.images.expand(-1, 3, -1, -1)
    assert all("alone" not in row for row in localization_rows(maps, found, tolerances=(0,)))


def test_the_first_cases_are_a_part_of_the_whole() -> None:
    part = cases().first(2)
    assert (len(part.images), len(part.masks), part.sizes.shape, part.patients) == (2, 2, (2, 3), ("p0", "p1"))
    assert part.present.tolist() == [[True, True, False], [True, False, False]]


def test_heat_falls_where_the_map_follows_the_lesion_and_stays_where_it_does_not(
    classifier: ZeroShotClassifier,
) -> None:
    found = cases()
    without = found.images.clone()
    without[found.masks[:, :1]] = 0.25
    bright = counterfactual_heat(Brightness(), classifier, found, without, "nodule", progress=False)
    assert bright.falls.tolist() == [1.0] * 6
    assert bright.remaining == pytest.approx(0.25)
    blob = counterfactual_heat(CentreBlob(), classifier, found, without, "nodule", progress=False)
    assert blob.falls.tolist() == [0.0] * 6
    assert blob.remaining == pytest.approx(1.0)
    nothing = counterfactual_heat(Brightness(), classifier, found._replace(images=-without), without, "nodule")
    assert np.isnan(nothing.remaining)


def test_what_does_not_fit_is_refused(classifier: ZeroShotClassifier) -> None:
    found = cases()
    with pytest.raises(ValueError, match="one shape"):
        localization_rows(found.images, found, tolerances=(0,))
    with pytest.raises(ValueError, match="must show mass"):
        counterfactual_heat(Brightness(), classifier, found, found.images, "mass", progress=False)
