"""The phantom's anatomy: one healthy thorax per patient, drawn from wide human ranges, as depth intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from monai_medclip.data.phantom_geometry import Array, Interval, Plane, ellipsoid, interval, root, union

__all__ = [
    "Anatomy",
    "abdomen_interval",
    "body_interval",
    "great_vessels_interval",
    "heart_interval",
    "lung_interval",
    "lung_walls",
    "sample_anatomy",
]


@dataclass(frozen=True)
class Anatomy:
    """Sizes in mm, angles in radians; x to the patient's left, y to the back, z to the feet."""

    female: bool
    thorax_half_width: float
    thorax_half_depth: float
    apex_z: tuple[float, float]  # top of the (right, left) lung
    dome_z: tuple[float, float]  # top of the (right, left) hemidiaphragm
    dome_height: float
    recess: float  # from the dome's top to the lung's lowest point
    apex_roundness: float
    wall: float  # chest wall, skin to pleura
    shoulder_z: float
    shoulder_slope: float
    neck: float
    breast_mm: float
    breast_z: float
    upper_mediastinum: tuple[float, float]  # half widths to the (right, left)
    heart_ratio: float  # cardiothoracic ratio of the healthy heart
    heart_tilt: float
    heart_roundness: float
    heart_offset: float  # share of the heart's width that its middle lies left of the midline
    aortic_knob: float
    rotation: float  # about the long axis, radians: what lies in front moves sideways
    scoliosis: float
    stomach_air: tuple[float, float, float]  # x, depth below the dome, radius
    lung_hu: float

    @property
    def heart_width(self) -> float:
        """Width of the healthy heart, mm."""
        return self.heart_ratio * 2 * self.thorax_half_width

    def turned(self, x: float, y: float) -> float:
        """x of a point at depth ``y`` once the patient is rotated."""
        return x + self.rotation * y


def sample_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a patient: size, habitus, breath, heart and posture vary independently."""
    size = float(np.clip(rng.normal(1.0, 0.075), 0.84, 1.16))
    female = bool(rng.random() < 0.5)
    half_width = size * rng.normal(129, 8)
    breath = rng.normal(0, 14)  # how far the domes come down, mm
    right_dome = size * 82 + breath
    apex = -size * rng.normal(120, 7)
    return Anatomy(
        female=female,
        thorax_half_width=half_width,
        thorax_half_depth=size * rng.normal(88, 9),
        apex_z=(apex, apex + rng.normal(0, 4)),
        dome_z=(right_dome, right_dome + rng.normal(11, 7)),
        dome_height=size * rng.normal(76, 9),
        recess=size * rng.normal(58, 7),
        apex_roundness=rng.uniform(0.5, 0.72),
        wall=abs(rng.normal(26, 16)) + 18,
        shoulder_z=apex - rng.normal(12, 11),
        shoulder_slope=rng.uniform(0.15, 0.5),
        neck=rng.uniform(44, 58),
        breast_mm=rng.uniform(12, 48) if female else rng.uniform(0, 8),
        breast_z=size * rng.normal(58, 14),
        upper_mediastinum=(size * rng.uniform(19, 31), size * rng.uniform(17, 29)),
        heart_ratio=rng.uniform(0.385, 0.505),
        heart_tilt=rng.uniform(0.35, 0.95),
        heart_roundness=rng.uniform(0.66, 0.85),
        heart_offset=rng.uniform(0.12, 0.24),
        aortic_knob=size * rng.uniform(12, 21),
        rotation=rng.normal(0, 0.06),
        scoliosis=rng.normal(0, 4),
        stomach_air=(rng.uniform(38, 78), rng.uniform(14, 30), rng.uniform(-6, 34)),
        lung_hu=rng.uniform(-830, -700),
    )


def _sides(plane: Plane, right_left: tuple[float, float]) -> Array:
    """A value per side of the body, over the plane."""
    return np.where(plane.x < 0, right_left[0], right_left[1])


def lung_walls(anatomy: Anatomy, z: Array, side: int, retract_mm: float = 0.0) -> tuple[Array, Array, Array, Array]:
    """The outline of the (0 right, 1 left) lung at heights ``z`` of any shape, mm.

    Returns:
        Medial and lateral distance from the midline, half depth shown (0 above the apex and below the recess), and half
        depth of the chest there.
    """
    apex = anatomy.apex_z[side] + 0.9 * retract_mm
    base = anatomy.dome_z[side] + anatomy.recess
    down = np.clip((z - apex) / (base - apex), 0, 1)
    inside = (z > apex) & (z < base)
    early = np.minimum(down / anatomy.apex_roundness, 1)
    medial = (
        anatomy.upper_mediastinum[side] * (1 - (0.6, 0.38)[side] * early * early * (3 - 2 * early))
        + 2
        + 4 * (1 - early) ** 2
    )
    lateral = anatomy.thorax_half_width - retract_mm * (1.1 - 0.8 * down)
    lateral = medial + (lateral - medial) * root(1 - (1 - early) ** 2) * (0.95 + 0.05 * down)
    recess = np.clip((z - anatomy.dome_z[side]) / anatomy.recess, 0, 1)
    depth = anatomy.thorax_half_depth * root(1 - (1 - early) ** 2 * 0.75) * (1 - 0.0025 * retract_mm)
    shown = depth * (1 - recess * recess * (3 - 2 * recess)) * inside
    return medial, np.maximum(lateral, medial + 1), shown, depth


def lung_interval(
    anatomy: Anatomy, plane: Plane, retract_mm: tuple[float, float] = (0.0, 0.0), shrink_mm: float = 0.0
) -> Interval:
    """Both lungs inside their pleura, before heart and diaphragm take their room.

    Args:
        anatomy: the patient.
        plane: where to look.
        retract_mm: how far the (right, left) lung has come away from the chest wall.
        shrink_mm: moves the lung's surface inward by this much (for thin shells).
    """
    right = lung_walls(anatomy, plane.z, 0, retract_mm[0] + shrink_mm)
    left = lung_walls(anatomy, plane.z, 1, retract_mm[1] + shrink_mm)
    on_left = plane.x >= 0
    medial, lateral, shown, depth = (np.where(on_left, two, one) for one, two in zip(right, left, strict=True))
    across = (np.abs(plane.x) - (medial + lateral) / 2) / ((lateral - medial) / 2)
    square = across * across
    low = np.clip((plane.z - anatomy.apex_z[0]) / 150, 0, 1)
    blunt = square * (np.abs(across) * (1 - low) + low)  # the mediastinum's edge is sharp above, soft behind the heart
    outer = np.where(across > 0, square, blunt)
    half = shown * root(1 - outer)
    return interval(depth * root(1 - 0.5 * outer) - half, half)  # the recess stays open at the back


def abdomen_interval(anatomy: Anatomy, plane: Plane) -> Interval:
    """Everything under the two domes of the diaphragm."""
    width = 0.57 * anatomy.thorax_half_width
    middle = 0.53 * anatomy.thorax_half_width
    across = (np.abs(plane.x) - middle) / width
    top = _sides(plane, anatomy.dome_z)
    rise = np.clip((top + anatomy.dome_height - plane.z) / anatomy.dome_height, 0, 1.01)
    half = (1.0 * anatomy.thorax_half_depth) * root(1 - across * across - rise * rise)
    return interval(-4.0, half)


def heart_interval(anatomy: Anatomy, plane: Plane, width: float) -> Interval:
    """The heart, ``width`` mm across, resting on the diaphragm; the right atrium bulges to the right."""
    long, _, x, y, z = _heart_place(anatomy, width)
    heart = ellipsoid(plane, (x, y, z), (long, 0.4 * width, anatomy.heart_roundness * long), anatomy.heart_tilt)
    atrium = ellipsoid(plane, (x - 0.27 * width, y, z + 4), (0.22 * width, 0.3 * width, 0.3 * width))
    return union(heart, atrium)


def great_vessels_interval(anatomy: Anatomy, plane: Plane) -> Interval:
    """Aortic knob and pulmonary trunk above the healthy heart."""
    _, height, _, _, z = _heart_place(anatomy, anatomy.heart_width)
    upper, arch_z = anatomy.upper_mediastinum[1], z - height - 26
    knob = ellipsoid(plane, (anatomy.turned(upper - 2, 14), 14, arch_z), (anatomy.aortic_knob, 26, anatomy.aortic_knob))
    trunk = ellipsoid(plane, (anatomy.turned(upper - 4, -8), -8, arch_z + 34), (15, 24, 20), 0.7)
    return union(knob, trunk)


def _heart_place(anatomy: Anatomy, width: float) -> tuple[float, float, float, float, float]:
    """Half length along its axis, half height, and middle (x, y, z) of a heart, mm."""
    tilt, roundness = anatomy.heart_tilt, anatomy.heart_roundness
    long = width / 2 / math.hypot(math.cos(tilt), roundness * math.sin(tilt))
    height = long * math.hypot(math.sin(tilt), roundness * math.cos(tilt))
    y = -0.28 * anatomy.thorax_half_depth
    z = (anatomy.dome_z[0] + anatomy.dome_z[1]) / 2 + 20 - 0.82 * height
    return long, height, anatomy.turned(anatomy.heart_offset * width, y), y, z


def body_interval(anatomy: Anatomy, plane: Plane) -> Interval:
    """Skin to skin: trunk, shoulders, neck, and breasts in front."""
    half_width = anatomy.thorax_half_width + anatomy.wall
    half_depth = anatomy.thorax_half_depth + 0.75 * anatomy.wall
    away = np.abs(plane.x)
    shoulder = anatomy.shoulder_z + anatomy.shoulder_slope * np.maximum(away - 58, 0)
    shoulder = shoulder - 46 * np.exp(np.minimum(46 - away, 0) / 22)  # the neck's slope
    below = plane.z - shoulder
    flare = np.clip((anatomy.apex_z[0] + 120 - plane.z) / 110, 0, 1)
    flare = flare * flare * (3 - 2 * flare)  # arms and shoulders widen the top
    across = (away / (half_width + 110 * flare)) ** 2
    trunk = half_depth * root(1 - across * across) * root(np.clip(below / 95, 0, 1))
    neck = 56 * root(1 - (plane.x / anatomy.neck) ** 2) * np.clip((plane.z + 400) / 100, 0, 1)
    body = interval(4.0, np.maximum(trunk, neck))
    dx = (away - (0.52 * anatomy.thorax_half_width)) / (0.46 * anatomy.thorax_half_width)
    dz = plane.z - anatomy.breast_z
    dz = np.where(dz > 0, dz / 42, dz / 85)  # a sharp fold below, a slow rise above
    bump = anatomy.breast_mm * np.maximum(1 - dx * dx - dz * dz, 0)
    return Interval(np.where(body.back > body.front, body.front - bump, body.front), body.back)
