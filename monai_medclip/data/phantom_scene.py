"""The phantom's scene: what each ray through one patient meets, with or without some of the findings."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_medclip.data.phantom_anatomy import Anatomy, abdomen_interval, lung_interval, mediastinum_interval
from monai_medclip.data.phantom_geometry import Array, Interval, Plane, attenuation, overlap, tissue
from monai_medclip.data.phantom_lesions import FOCAL, Lesion, fluid_share

__all__ = ["Chest", "chest_of"]

_PLEURA_MM = 1.6  # of the visceral pleura's line


@dataclass(frozen=True)
class Chest:
    """What fills the two pleural cavities over a plane: intervals of depth.

    Attributes:
        pleura: the cavities.
        lung: the lungs, smaller than the cavities under a pneumothorax.
        mediastinum: heart and great vessels.
        abdomen: what lies under the diaphragm.
        fluid: the pleural effusion, if any.
        inner: the collapsed lungs without their pleura, if any.
        focal: nodule, mass, consolidation with the window of the plane that they touch.
    """

    pleura: Interval
    lung: Interval
    mediastinum: Interval
    abdomen: Interval
    fluid: Interval | None
    inner: Interval | None
    focal: tuple[tuple[Lesion, tuple[slice, slice], Interval], ...]

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
        inside = Interval(np.maximum(part.front, lung.front), np.minimum(part.back, lung.back))
        return self.free(inside, where)

    def masks(self, pixel_floor_mm: float = 0.0) -> dict[str, NDArray[np.bool_]]:
        """Projected masks (rows, columns) of the findings that this chest shows."""
        found: dict[str, NDArray[np.bool_]] = {}
        for index, (lesion, where, _) in enumerate(self.focal):
            depth = self.lesion_mm(index)
            mask = np.zeros(self.lung.front.shape, bool)
            mask[where] = depth > max(0.18 * float(depth.max(initial=0)), pixel_floor_mm)
            found[lesion.finding] = mask
        if self.fluid is not None:
            left_over = Interval(
                np.maximum(self.fluid.front, self.pleura.front), np.minimum(self.fluid.back, self.pleura.back)
            )
            without = Chest(self.pleura, self.lung, self.mediastinum, self.abdomen, None, None, ())
            found["pleural effusion"] = without.free(left_over) > 8
        if self.inner is not None:
            found["pneumothorax"] = self.free(self.pleura) - self.free(self.lung) > 0.25 * self.pleura.thickness + 4
        return found

    def log_attenuation(self, vessels: Array, lung_hu: float, pixel_mm: float) -> Array:
        """(rows, columns) what the chest's contents change in -log(intensity), against soft tissue everywhere.

        Args:
            vessels: (rows, columns) mm of vessel over the plane.
            lung_hu: CT number of aerated lung.
            pixel_mm: pixel size: no line is drawn thinner.
        """
        soft, lung_mu = tissue("soft"), attenuation(lung_hu)
        lung_mm = self.free(self.lung)
        cavity_mm = self.free(self.pleura) if self.inner is not None else lung_mm
        aerated = lung_mm / np.maximum(self.pleura.thickness, 1)
        total = (lung_mu - soft) * lung_mm + (tissue("air") - soft) * (cavity_mm - lung_mm)
        total = total + (tissue("blood") - lung_mu) * vessels * aerated
        if self.inner is not None:
            width = max(_PLEURA_MM, 0.75 * pixel_mm)
            shell = lung_mm - self.free(self.inner)
            total = total + (soft - lung_mu) * _PLEURA_MM / width * np.where(
                cavity_mm - self.free(self.lung) >= 0, shell, 0
            )
        for index, (lesion, where, _) in enumerate(self.focal):
            total[where] += (
                (attenuation(lesion.hu) - lung_mu) * self.lesion_mm(index) * (1 - np.minimum(vessels[where] / 40, 0.6))
            )
        return total


def chest_of(anatomy: Anatomy, lesions: Collection[Lesion], plane: Plane) -> Chest:
    """Fill the chest of a patient with (some of) the patient's lesions."""
    known = {lesion.finding: lesion for lesion in lesions}
    pleura = lung_interval(anatomy, plane)
    heart = known["cardiomegaly"].size_mm if "cardiomegaly" in known else anatomy.heart_width
    lung, inner, fluid = pleura, None, None
    if "pneumothorax" in known:
        retract = known["pneumothorax"].retract_mm
        lung = lung_interval(anatomy, plane, retract)
        width = max(_PLEURA_MM, 0.75 * plane.pixel_mm[0])
        inner = lung_interval(anatomy, plane, tuple(r + width * (r > 0) for r in retract))  # type: ignore[arg-type]
    if "pleural effusion" in known:
        share = fluid_share(anatomy, plane, known["pleural effusion"])
        front = np.where(share > 0, pleura.back - share * pleura.thickness, 1e4)
        fluid = Interval(front, pleura.back)
    focal = []
    for finding in FOCAL:
        if finding in known:
            lesion = known[finding]
            where, part = plane.window(lesion.centre[0], lesion.centre[2], lesion.size_mm * 0.6 + 2)
            focal.append((lesion, where, lesion.interval(part)))
    mediastinum = mediastinum_interval(anatomy, plane, heart)
    return Chest(pleura, lung, mediastinum, abdomen_interval(anatomy, plane), fluid, inner, tuple(focal))
