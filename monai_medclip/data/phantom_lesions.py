"""The phantom's findings: where a lesion sits, how large it is, and its depth interval over any plane."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from monai_medclip.data.phantom_anatomy import (
    Anatomy,
    abdomen_interval,
    great_vessels_interval,
    heart_interval,
    lung_interval,
    lung_walls,
)
from monai_medclip.data.phantom_geometry import Array, Interval, Plane, hu_of, interval, root, tissue, union

__all__ = ["FINDING_NAMES", "FOCAL", "SIZE_MM", "Lesion", "sample_lesions"]

FINDING_NAMES = ("nodule", "mass", "pleural effusion", "consolidation", "cardiomegaly", "pneumothorax")
FOCAL = ("nodule", "mass", "consolidation")  # lesions with a place of their own
# Of each finding, independently. Nodules are the hardest to learn, so they are the most frequent.
PROBABILITY = dict.fromkeys(FINDING_NAMES, 0.25) | {"nodule": 0.4}
SIZE_MM = {
    "nodule": (6.0, 30.0),  # diameter
    "mass": (38.0, 78.0),  # diameter
    "pleural effusion": (56.0, 130.0),  # height at the wall, from the deepest recess
    "consolidation": (46.0, 96.0),  # longest diameter
    "pneumothorax": (12.0, 42.0),  # gap between the apex of the lung and the chest wall
}
HEART_RATIO = (0.55, 0.67)  # cardiothoracic ratio of an enlarged heart; a healthy one ends at 0.505
# Least log-attenuation at a nodule's middle: small ones are calcified, as those that radiographs show.
NODULE_CONTRAST = 1.8
DENSEST_HU = 3000.0  # a small, fully calcified granuloma
_FINEST_MM = 1.2  # lesions are sampled at least this finely
_SIDES, _ZONES = ("right", "left"), ("upper", "middle", "lower")


@dataclass(frozen=True)
class Lesion:
    """One finding of one patient.

    Attributes:
        finding: one of ``FINDING_NAMES``.
        side: ``right``, ``left``, or empty for the heart.
        zone: ``upper``, ``middle`` or ``lower`` third of the lung, or empty for the heart.
        size_mm: see ``SIZE_MM``; for cardiomegaly the width of the heart.
        centre: (x, y, z) mm of a focal lesion's middle.
        hu: CT number of its substance.
        shape: random numbers in [0, 1) that draw its outline.
    """

    finding: str
    side: str
    zone: str
    size_mm: float
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    hu: float = 40.0
    shape: tuple[float, ...] = ()

    def interval(self, plane: Plane) -> Interval:
        """Depth that a focal lesion takes: the mean over each pixel, so that no lesion falls between two."""
        factor = max(1, math.ceil(max(plane.pixel_mm) / _FINEST_MM))
        fine = plane.finer(factor)
        half = self._half_mm(fine.x - self.centre[0], fine.z - self.centre[2])
        rows, columns = plane.shape
        return interval(self.centre[1], half.reshape(rows, factor, columns, factor).mean(axis=(1, 3)))

    def _half_mm(self, dx: Array, dz: Array) -> Array:
        """Half the thickness at distances (across, down) from the lesion's middle, mm."""
        if self.finding == "consolidation":
            return _patchy(dx, dz, self.size_mm, self.shape)
        if self.finding == "mass":
            return _lobulated(dx, dz, self.size_mm / 2, self.shape)
        return root((self.size_mm / 2) ** 2 - dx * dx - dz * dz)

    @property
    def side_index(self) -> int:
        """0 right, 1 left."""
        return _SIDES.index(self.side)

    @property
    def retract_mm(self) -> tuple[float, float]:
        """How far a pneumothorax has let the (right, left) lung come away."""
        gap = self.size_mm / 0.9 if self.finding == "pneumothorax" else 0.0
        return (gap, 0.0) if self.side == "right" else (0.0, gap)


def _lobulated(dx: Array, dz: Array, radius: float, shape: tuple[float, ...]) -> Array:
    """Half thickness of a lumpy ball, (rows, columns) mm."""
    angle = np.arctan2(dz, dx)
    outline = np.full_like(angle, 0.88)
    for lobes, (size, phase) in enumerate(zip(shape[0:10:2], shape[1:10:2], strict=True), start=2):
        outline = outline + (0.22 * size / lobes) * np.cos(lobes * angle + (2 * np.pi * phase))
    away = (dx * dx + dz * dz) / (radius * np.minimum(outline, 1)) ** 2
    return 1.15 * radius * root(1 - away * away)  # steeper than a ball: the border of a solid tumour


def _patchy(dx: Array, dz: Array, size: float, shape: tuple[float, ...]) -> Array:
    """Half thickness of a fluffy opacity: waves of 14-46 mm eat into an ellipse, (rows, columns) mm."""
    tilt, flat = np.pi * shape[0], 0.6 + 0.35 * shape[1]
    along = (dx * math.cos(tilt) + dz * math.sin(tilt)) / (size / 2)
    across = (dz * math.cos(tilt) - dx * math.sin(tilt)) / (size / 2 * flat)
    ripple = np.zeros_like(dx)
    for turn, phase, pitch in zip(shape[2:23:3], shape[3:24:3], shape[4:24:3], strict=True):
        wave = 2 * np.pi / (14 + 32 * pitch)
        ripple = ripple + np.sin(
            wave * math.cos(2 * np.pi * turn) * dx + wave * math.sin(2 * np.pi * turn) * dz + (2 * np.pi * phase)
        )
    body = np.maximum(1 - along * along - across * across, 0)
    return (0.62 * size) * body * np.clip(0.8 + 0.11 * ripple, 0.15, 1.2)


def sample_lesions(anatomy: Anatomy, seed: int, index: int) -> tuple[Lesion, ...]:
    """The findings of patient ``index``: each from a random stream of its own."""
    lesions: list[Lesion] = []
    for finding in ("cardiomegaly", "pneumothorax", "pleural effusion", "consolidation", "mass", "nodule"):
        rng = np.random.default_rng([seed, index, 1 + FINDING_NAMES.index(finding)])
        if rng.random() < PROBABILITY[finding] and (lesion := _sample(finding, anatomy, lesions, rng)) is not None:
            lesions.append(lesion)
    return tuple(sorted(lesions, key=lambda lesion: FINDING_NAMES.index(lesion.finding)))


def _sample(finding: str, anatomy: Anatomy, others: list[Lesion], rng: np.random.Generator) -> Lesion | None:
    if finding == "cardiomegaly":
        return Lesion(finding, "", "", 2 * anatomy.thorax_half_width * rng.uniform(*HEART_RATIO))
    low, high = SIZE_MM[finding]
    size = low + (high - low) * float(rng.random()) ** 0.3  # the smallest are the rarest
    side, shape = str(rng.choice(_SIDES)), tuple(rng.random(24).tolist())
    if finding in ("pleural effusion", "pneumothorax"):
        taken = {other.side for other in others if other.finding == "pneumothorax"}
        side = side if side not in taken else _SIDES[1 - _SIDES.index(side)]
        return Lesion(finding, side, "lower" if finding == "pleural effusion" else "upper", size, shape=shape)
    place = _place(anatomy, others, size, side, rng)
    if place is None:
        return None
    side, zone, centre = place
    hu = {"mass": 100.0, "consolidation": 30.0}.get(finding, 40.0)
    if finding == "nodule":
        hu = min(max(hu, hu_of(NODULE_CONTRAST / size + tissue("lung"))), DENSEST_HU)
    return Lesion(finding, side, zone, size, centre, hu, shape)


def _place(
    anatomy: Anatomy, others: list[Lesion], size: float, side: str, rng: np.random.Generator
) -> tuple[str, str, tuple[float, float, float]] | None:
    """Side, zone and middle of a lesion that lies in free lung, away from the other lesions; None if none is free."""
    tries, zone = 96, int(rng.integers(3))
    left = np.full(tries, side == "left")
    zones = np.full(tries, zone)
    left[32:], zones[48:] = rng.random(tries - 32) < 0.5, rng.integers(0, 3, tries - 48)
    apex = np.where(left, anatomy.apex_z[1], anatomy.apex_z[0]) + 8
    height = np.where(left, anatomy.dome_z[1], anatomy.dome_z[0]) + 6 - apex
    z = (apex + height * (zones + rng.random(tries)) / 3).astype(np.float32)
    medial, lateral = (np.where(left, *(lung_walls(anatomy, z, s)[k] for s in (1, 0))) for k in (0, 1))
    margin = min(0.42 * size, 18.0) + 4
    x = (medial + margin + (lateral - medial - 2 * margin) * rng.random(tries)) * np.where(left, 1, -1)
    free, lungs = _freedom(anatomy, others, x.astype(np.float32), z, size)
    free -= 3 * (lateral - medial < 2 * margin)
    best = int(np.argmax(free > 0.95)) if (free > 0.95).any() else int(np.argmax(free))
    if free[best] < 0.5:
        return None
    front, back = float(lungs.front[best, 0]), float(lungs.back[best, 0])
    reach = min(size / 2, 0.45 * (back - front))
    y = front + reach + (back - front - 2 * reach) * float(rng.random()) ** 0.7
    return _SIDES[int(left[best])], _ZONES[int(zones[best])], (float(x[best]), y, float(z[best]))


def _freedom(anatomy: Anatomy, others: list[Lesion], x: Array, z: Array, size: float) -> tuple[Array, Interval]:
    """Share of each candidate (T,) that lies in clear lung, and the lungs' depth at it and around it (T, 5)."""
    step = 0.36 * size * np.asarray([[0, 1, -1, 0, 0], [0, 0, 0, 1, -1]], np.float32)
    points = Plane(x[:, None] + step[0], z[:, None] + step[1], (0, 0), (1, 1))
    retract = next((other.retract_mm for other in others if other.finding == "pneumothorax"), (0.0, 0.0))
    heart = next((other.size_mm for other in others if other.finding == "cardiomegaly"), anatomy.heart_width)
    lungs = lung_interval(anatomy, points, retract)
    mediastinum = union(heart_interval(anatomy, points, heart), great_vessels_interval(anatomy, points))
    taken = mediastinum.thickness + abdomen_interval(anatomy, points).thickness
    clear = (lungs.thickness > 45) & (taken < 0.35 * lungs.thickness)
    for other in others:
        if other.finding == "pleural effusion":
            clear &= fluid_share(anatomy, points, other) < 0.05
        elif other.finding in FOCAL:
            apart = np.hypot(x - other.centre[0], z - other.centre[2]) - (other.size_mm + size) / 2
            clear &= (apart > 3)[:, None]
    return clear.mean(axis=1).astype(np.float32), lungs


def fluid_share(anatomy: Anatomy, plane: Plane, effusion: Lesion) -> Array:
    """Share of the pleural depth that fluid fills from the back, (rows, columns) in [0, 1]; its edge climbs."""
    side = effusion.side_index
    base = anatomy.dome_z[side] + anatomy.recess
    _, lateral, _, _ = lung_walls(anatomy, plane.z, side)
    climb = np.exp(-np.maximum(lateral - np.abs(plane.x), 0) / (16 + 14 * effusion.shape[0]))
    surface = base - effusion.size_mm * (0.6 + 0.4 * climb)
    depth = np.clip((plane.z - surface) / (9 + 7 * effusion.shape[1]), 0, 1)
    here = plane.x < 0 if side == 0 else plane.x >= 0
    return np.where(here, depth * depth * (3 - 2 * depth), 0).astype(np.float32)
