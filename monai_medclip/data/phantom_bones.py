"""The phantom's flat and stacked bones as bone-equivalent depth: spine and shoulder blades."""

from __future__ import annotations

import numpy as np

from monai_medclip.data.phantom_anatomy import Anatomy
from monai_medclip.data.phantom_geometry import Array, Interval, Plane, interval, root

__all__ = ["scapula_interval", "spine_density", "spine_interval"]

_VERTEBRA_MM = 23.0


def spine_interval(anatomy: Anatomy, plane: Plane) -> Interval:
    """The column of vertebral bodies and arches, widening toward the loins."""
    axis = anatomy.turned(0, 0.9 * anatomy.thorax_half_depth) + anatomy.scoliosis * np.sin(plane.z / 60)
    half_width = 15.5 + 0.028 * (plane.z + 120) + 1.4 * np.cos(2 * np.pi * plane.z / _VERTEBRA_MM)
    across = ((plane.x - axis) / half_width) ** 2
    half = 17 * root(1 - across * across)
    return interval((0.72 * anatomy.thorax_half_depth), half.astype(np.float32))


def spine_density(anatomy: Anatomy, plane: Plane) -> Array:
    """Share of bone in the spine, 0.2 in the discs to 1.3 in pedicles and spinous processes."""
    axis = anatomy.turned(0, 0.9 * anatomy.thorax_half_depth) + anatomy.scoliosis * np.sin(plane.z / 60)
    phase = 2 * np.pi * plane.z / _VERTEBRA_MM
    body = 0.62 + 0.3 * np.tanh(2.5 * (np.cos(phase) + 0.55))
    away = np.abs(plane.x - axis)
    near = np.clip(np.cos(phase), 0, 1)
    pedicle = 0.5 * np.exp(-(((away - 10) / 3.2) ** 2)) * near**4
    spinous = 0.4 * np.exp(-((away / 3) ** 2)) * np.clip(np.cos(phase + 1.2), 0, 1) ** 2
    return (body + pedicle + spinous).astype(np.float32)


def scapula_interval(anatomy: Anatomy, plane: Plane, pull_mm: float) -> Interval:
    """Two thin triangular plates behind the upper ribs, pulled ``pull_mm`` outward by the patient's arms."""
    away = np.abs(plane.x) - (anatomy.thorax_half_width + pull_mm)
    down = plane.z - (anatomy.apex_z[0] + 22)
    medial = away + 34 - 0.12 * down
    lateral = 46 - away - 0.55 * down
    upper = down + 0.25 * away
    inside = np.minimum(np.minimum(medial, lateral * 0.87), upper)
    border = 5.0 * np.exp(-(((inside - 3) / 2.6) ** 2))
    plate = np.where(inside > 0, 1.6 + border, 0)
    return interval((anatomy.thorax_half_depth + 9), (plate / 2).astype(np.float32))
