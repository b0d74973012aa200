"""The phantom's drawing board: coronal planes, depth intervals and tapered tubes, in millimetres.

Every organ of the phantom is an *interval of depth* over the coronal plane: at (x, z) it reaches from ``front`` to
``back``. A radiograph adds interval lengths (Beer-Lambert along parallel rays), a CT asks which voxels lie inside: one
geometry, two images.
Axes: x to the patient's left, y to the patient's back, z to the feet; the origin is the middle of the chest.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Interval",
    "Plane",
    "Tubes",
    "attenuation",
    "both",
    "ellipsoid",
    "hu_of",
    "interval",
    "overlap",
    "project",
    "root",
    "tissue",
    "union",
]

Array = NDArray[Any]  # float32 over a plane

WATER_PER_MM = 0.019  # linear attenuation of water at the effective energy of a chest radiograph, about 75 keV
HU = {
    "air": -1000.0,
    "lung": -770.0,
    "soft": 30.0,
    "blood": 45.0,
    "fluid": 10.0,
    "lesion": 40.0,
    "consolidation": 0.0,
    "spine": 240.0,
    "rib": 700.0,
}
_NOWHERE = 1e4  # an empty interval runs from +NOWHERE to -NOWHERE, so that unions need no special case


class Plane(NamedTuple):
    """Where the columns of the body lie that one image looks through.

    Attributes:
        x: (rows, columns) mm to the patient's left.
        z: (rows, 1) mm to the feet.
        origin_mm: (x, z) of the centre of pixel (0, 0).
        pixel_mm: (across, down) mm per pixel.
        shear: dx/dz of a patient who leans in front of the detector.
    """

    x: Array
    z: Array
    origin_mm: tuple[float, float]
    pixel_mm: tuple[float, float]
    shear: float = 0.0

    @classmethod
    def make(
        cls,
        shape: tuple[int, int],
        pixel_mm: tuple[float, float],
        *,
        centre_mm: tuple[float, float] = (0.0, 0.0),
        shear: float = 0.0,
    ) -> Plane:
        """A plane of ``shape`` (rows, columns) whose middle looks at ``centre_mm`` (x, z) of the patient."""
        rows, columns = shape
        z0 = centre_mm[1] - (rows - 1) / 2 * pixel_mm[1]
        x0 = centre_mm[0] - (columns - 1) / 2 * pixel_mm[0]
        z = (z0 + pixel_mm[1] * np.arange(rows, dtype=np.float32))[:, None]
        x = x0 + pixel_mm[0] * np.arange(columns, dtype=np.float32)[None, :] + shear * z
        return cls(x.astype(np.float32), z.astype(np.float32), (x0, z0), pixel_mm, shear)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.x.shape[0], self.x.shape[1]

    def pixels(self, x: NDArray[np.floating], z: NDArray[np.floating]) -> tuple[Array, Array]:
        """Fractional (row, column) of points of the patient, any shape, in mm."""
        row = (z - self.origin_mm[1]) / self.pixel_mm[1]
        column = (x - self.shear * z - self.origin_mm[0]) / self.pixel_mm[0]
        return row.astype(np.float32), column.astype(np.float32)

    def window(self, x: float, z: float, reach_mm: float) -> tuple[tuple[slice, slice], Plane]:
        """The part of the plane within ``reach_mm`` of (x, z), and where it lies in the whole."""
        row, column = self.pixels(np.asarray(x), np.asarray(z))
        down, across = reach_mm / self.pixel_mm[1], reach_mm / self.pixel_mm[0] + abs(self.shear) * reach_mm
        rows = slice(max(int(row - down), 0), max(int(row + down) + 2, 0))
        columns = slice(max(int(column - across), 0), max(int(column + across) + 2, 0))
        origin = (
            self.origin_mm[0] + columns.start * self.pixel_mm[0],
            self.origin_mm[1] + rows.start * self.pixel_mm[1],
        )
        part = Plane(self.x[rows, columns], self.z[rows], origin, self.pixel_mm, self.shear)
        return (rows, columns), part

    def finer(self, factor: int) -> Plane:
        """The same view with ``factor`` squared points in each pixel."""
        step = (self.pixel_mm[0] / factor, self.pixel_mm[1] / factor)
        origin = (
            self.origin_mm[0] - (self.pixel_mm[0] - step[0]) / 2,
            self.origin_mm[1] - (self.pixel_mm[1] - step[1]) / 2,
        )
        rows, columns = factor * self.shape[0], factor * self.shape[1]
        z = (origin[1] + step[1] * np.arange(rows, dtype=np.float32))[:, None]
        x = origin[0] + step[0] * np.arange(columns, dtype=np.float32)[None, :] + self.shear * z
        return Plane(x, z, origin, step, self.shear)


class Interval(NamedTuple):
    """A body part as depth over the plane: from ``front`` to ``back`` (rows, columns), mm; empty where front > back."""

    front: Array
    back: Array

    @property
    def thickness(self) -> Array:
        """(rows, columns) mm of the part that a ray meets, 0 where it misses."""
        return np.maximum(self.back - self.front, 0)

    def at(self, where: tuple[slice, slice]) -> Interval:
        """The same part over a window of the plane."""
        return Interval(self.front[where], self.back[where])


def interval(centre: Array | float, half: Array) -> Interval:
    """From a centre depth and a half thickness; empty where ``half`` is not positive."""
    inside = half > 0
    return Interval(np.where(inside, centre - half, _NOWHERE), np.where(inside, centre + half, -_NOWHERE))


def union(one: Interval, other: Interval) -> Interval:
    """Both parts, and what lies between them where both are met."""
    return Interval(np.minimum(one.front, other.front), np.maximum(one.back, other.back))


def both(one: Interval, other: Interval) -> Interval:
    """What lies in both parts."""
    return Interval(np.maximum(one.front, other.front), np.minimum(one.back, other.back))


def overlap(*parts: Interval) -> Array:
    """(rows, columns) mm that lie in all ``parts``."""
    front, back = parts[0]
    for part in parts[1:]:
        front, back = np.maximum(front, part.front), np.minimum(back, part.back)
    return np.maximum(back - front, 0)


def ellipsoid(
    plane: Plane, centre: tuple[float, float, float], semi: tuple[float, float, float], tilt: float = 0.0
) -> Interval:
    """An ellipsoid at ``centre`` (x, y, z), semi-axes (along, depth, across), long axis ``tilt`` radians below +x."""
    dx, dz = plane.x - centre[0], plane.z - centre[2]
    cos, sin = math.cos(tilt), math.sin(tilt)
    along, across = (dx * cos + dz * sin) / semi[0], (dz * cos - dx * sin) / semi[2]
    return interval(centre[1], semi[1] * root(1 - along * along - across * across))


def root(values: Array) -> Array:
    """Square root of the positive part."""
    return np.sqrt(np.maximum(values, 0))


def attenuation(hu: float) -> float:
    """Linear attenuation per mm; bone absorbs more than its CT number says at a radiograph's energy."""
    return WATER_PER_MM * (1 + hu / 1000 + 0.35 * max(hu - 100, 0) / 1000)


def hu_of(per_mm: float) -> float:
    """CT number of a substance of a given linear attenuation per mm: the inverse of :func:`attenuation`."""
    relative = per_mm / WATER_PER_MM - 1
    return 1000 * relative if relative < 0.1 else 1000 * (relative + 0.035) / 1.35


def tissue(name: str) -> float:
    """Linear attenuation per mm of a tissue of ``HU``."""
    return attenuation(HU[name])


class Tubes(NamedTuple):
    """Tapered tubes (vessels, ribs, airways): ``start`` and ``end`` (S, 3) mm as (x, y, z), ``radius`` (S,) mm."""

    start: Array
    end: Array
    radius: Array

    @classmethod
    def along(cls, points: Array, radius: Array) -> Tubes:
        """Tubes along poly-lines: points (..., K, 3), radius (..., K) at the points."""
        start, end = points[..., :-1, :].reshape(-1, 3), points[..., 1:, :].reshape(-1, 3)
        mean = (radius[..., :-1] + radius[..., 1:]).reshape(-1) / 2
        return cls(start.astype(np.float32), end.astype(np.float32), mean.astype(np.float32))


_PROFILE_AREA = {
    False: 512 / 315,
    True: 0.4 * np.pi / 2 + 1.2 * np.pi / 16,
}  # of the two profiles across a tube of half width 1


def join(*parts: Tubes) -> Tubes:
    """All tubes of several bundles."""
    return Tubes(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def project(tubes: Tubes, plane: Plane, *, hollow: bool = False) -> Array:
    """(rows, columns) mm of tube that each ray meets; square pixels only.

    The profile across a tube is a bell of the tube's own cross-section area, never narrower than a pixel, so that thin
    vessels keep their mass at every image size. ``hollow`` gives the two bright edges of a rib's cortex.
    """
    pixel = plane.pixel_mm[0]
    row0, column0 = plane.pixels(tubes.start[:, 0], tubes.start[:, 2])
    row1, column1 = plane.pixels(tubes.end[:, 0], tubes.end[:, 2])
    length = np.maximum(np.hypot(row1 - row0, column1 - column0), 1e-3)
    half = np.hypot(tubes.radius * (1.3 if hollow else 0.9), 0.45 * pixel) / pixel  # visible half width, pixels
    oblique = np.minimum(np.linalg.norm(tubes.end - tubes.start, axis=1) / (length * pixel), 2)  # seen along its run
    peak = np.pi * tubes.radius**2 * oblique / (_PROFILE_AREA[hollow] * half * pixel)
    strokes = np.stack([row0, column0, row1, column1, length, half, peak]).astype(np.float32)
    reach = np.ceil(length / 2 + (1.3 if hollow else 1.8) * half + 0.5).astype(int)
    total = np.zeros(plane.shape, np.float32)
    for pixels in np.unique(reach):
        total += _draw(strokes[:, reach == pixels], int(pixels), plane.shape, hollow)
    return total


def _draw(strokes: Array, reach: int, shape: tuple[int, int], hollow: bool) -> Array:
    """Strokes (7, S) of one size, each drawn in a patch of ``2 * reach + 1`` pixels and added up."""
    row0, column0, row1, column1, length, half, peak = strokes[..., None, None]
    grid = np.arange(-reach, reach + 1, dtype=np.float32)
    rows = np.rint((row0 + row1) / 2) + grid[:, None]  # (S, P, 1)
    columns = np.rint((column0 + column1) / 2) + grid  # (S, 1, P)
    unit_r, unit_c = (row1 - row0) / length, (column1 - column0) / length
    dr, dc = rows - row0, columns - column0
    along = dr * unit_r + dc * unit_c  # (S, P, P) pixels
    across = (dc * (unit_r / half) - dr * (unit_c / half)) ** 2
    patch = peak * np.clip(length / 2 + 0.5 - np.abs(along - length / 2), 0, np.minimum(length, 1))
    if hollow:
        patch *= root(1 - across) * (0.4 + 1.2 * across * across)
    else:
        bell = np.maximum(1 - across / 4, 0)
        bell *= bell
        patch *= bell * bell
    inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    keep = inside & (patch > 0)
    flat = (rows * shape[1] + columns)[keep].astype(np.int64)
    return np.bincount(flat, weights=patch[keep], minlength=shape[0] * shape[1]).reshape(shape).astype(np.float32)
