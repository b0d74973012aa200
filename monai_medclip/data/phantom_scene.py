"""The phantom's scene: what each ray through one patient meets, with or without some of the findings."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from monai_medclip.data.phantom_anatomy import (
    Anatomy,
    abdomen_interval,
    great_vessels_interval,
    heart_interval,
    lung_interval,
)
from monai_medclip.data.phantom_geometry import Array, Interval, Plane, attenuation, both, overlap, tissue, union
from monai_medclip.data.phantom_lesions import Lesion, fluid_share

__all__ = ["PLEURA_MM", "Chest", "healthy_chest", "with_lesions"]

PLEURA_MM = 1.6  # of the visceral pleura's line


@dataclass(frozen=True)
class Chest:
    """What fills the two pleural cavities over a plane: intervals of depth.

    Attributes:
        pleura: the cavities.
        lung: the lungs, smaller than the cavities under a pneumothorax.
        heart: the heart alone.
        mediastinum: heart and great vessels.
        abdomen: what lies under the diaphragm.
        fluid: the pleural effusion, if any.
        inner: the collapsed lungs without their pleura, if any.
        line_mm: how wide the pleura's line is drawn (``PLEURA_MM`` or most of a pixel).
        enlarged: whether the heart is.
        focal: nodule, mass, consolidation with the window of the plane that they touch.
    """

    pleura: Interval
    lung: Interval
    heart: Interval
    mediastinum: Interval
    abdomen: Interval
    fluid: Interval | None = None
    inner: Interval | None = None
    line_mm: float = PLEURA_MM
    enlarged: bool = False
    focal: tuple[tuple[Lesion, tuple[slice, slice], Interval], ...] = ()

    def free(self, part: Interval, where: tuple[slice, slice] | None = None) -> Array:
        """(rows, columns) mm of ``part`` that heart, diaphragm and fluid leave over."""
        solids = [self.mediastinum, self.abdomen] + ([self.fluid] if self.fluid is not None else [])
        if where is not None:
            solids = [solid.at(where) for solid in solids]
        left = part.thickness
        for first, solid in enumerate(solids):  # inclusion and exclusion
            left = left - overlap(part, solid)
            for second, other in enumerate(solids[first + 1 :], start=first + 1):
                left = left + overlap(part, solid, other)
                for third in solids[second + 1 :]:
                    left = left - overlap(part, solid, other, third)
        return np.maximum(left, 0)

    def lesion_mm(self, index: int) -> Array:
        """Depth of focal lesion ``index`` inside free lung, over its window."""
        _, where, part = self.focal[index]
        lung = self.lung.at(where)
        return self.free(both(part, lung), where)

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """Projected masks (rows, columns) of the findings that this chest shows."""
        found: dict[str, NDArray[np.bool_]] = {}
        for index, (lesion, where, _) in enumerate(self.focal):
            depth = self.lesion_mm(index)
            mask = np.zeros(self.lung.front.shape, bool)
            mask[where] = depth > 0.18 * float(depth.max(initial=0))
            found[lesion.finding] = mask
        if self.fluid is not None:
            dry = replace(self, fluid=None)
            found["pleural effusion"] = dry.free(both(self.fluid, self.pleura)) > 8
        if self.enlarged:
            found["cardiomegaly"] = self.heart.thickness > 0
        if self.inner is not None:
            found["pneumothorax"] = self.free(self.pleura) - self.free(self.lung) > 0.25 * self.pleura.thickness + 4
        return found

    def log_attenuation(self, vessels: Array, lung_hu: float) -> Array:
        """(rows, columns) what the chest's contents change in -log(intensity), against soft tissue everywhere.

        Args:
            vessels: (rows, columns) mm of vessel over the plane.
            lung_hu: CT number of aerated lung.
        """
        soft, lung_mu = tissue("soft"), attenuation(lung_hu)
        lung_mm = self.free(self.lung)
        cavity_mm = self.free(self.pleura) if self.inner is not None else lung_mm
        aerated = lung_mm / np.maximum(self.pleura.thickness, 1)
        total = (lung_mu - soft) * lung_mm + (tissue("air") - soft) * (cavity_mm - lung_mm)
        total = total + (tissue("blood") - lung_mu) * vessels * aerated
        if self.inner is not None:
            shell = lung_mm - self.free(self.inner)
            total = total + (soft - lung_mu) * PLEURA_MM / self.line_mm * shell
        for index, (lesion, where, _) in enumerate(self.focal):
            total[where] += (attenuation(lesion.hu) - lung_mu) * self.lesion_mm(index)
        return total


def healthy_chest(anatomy: Anatomy, plane: Plane) -> Chest:
    """The chest of a patient without any finding."""
    pleura = lung_interval(anatomy, plane)
    heart = heart_interval(anatomy, plane, anatomy.heart_width)
    return Chest(
        pleura=pleura,
        lung=pleura,
        heart=heart,
        mediastinum=union(heart, great_vessels_interval(anatomy, plane)),
        abdomen=abdomen_interval(anatomy, plane),
        line_mm=max(PLEURA_MM, 0.75 * plane.pixel_mm[0]),
    )


def with_lesions(healthy: Chest, anatomy: Anatomy, lesions: Collection[Lesion], plane: Plane) -> Chest:
    """The same chest with (some of) the patient's lesions."""
    chest = healthy
    for lesion in lesions:
        if lesion.finding == "cardiomegaly":
            heart = heart_interval(anatomy, plane, lesion.size_mm)
            vessels = great_vessels_interval(anatomy, plane)
            chest = replace(chest, heart=heart, mediastinum=union(heart, vessels), enlarged=True)
        elif lesion.finding == "pneumothorax":
            (right, left), line = lesion.retract_mm, chest.line_mm
            thinner = (right + line * (right > 0), left + line * (left > 0))
            lung, inner = lung_interval(anatomy, plane, (right, left)), lung_interval(anatomy, plane, thinner)
            chest = replace(chest, lung=lung, inner=inner)
        elif lesion.finding == "pleural effusion":
            share = fluid_share(anatomy, plane, lesion)
            front = np.where(share > 0, chest.pleura.back - share * chest.pleura.thickness, 1e4)
            chest = replace(chest, fluid=Interval(front, chest.pleura.back))
        else:
            where, part = plane.window(lesion.centre[0], lesion.centre[2], lesion.size_mm * 0.6 + 2)
            chest = replace(chest, focal=(*chest.focal, (lesion, where, lesion.interval(part))))
    return chest
