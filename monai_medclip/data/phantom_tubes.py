"""The phantom's long and thin parts: pulmonary vessels that taper from the hila, airways, ribs and clavicles."""

from __future__ import annotations

import numpy as np

from monai_medclip.data.phantom_anatomy import Anatomy, lung_walls
from monai_medclip.data.phantom_geometry import Array, Tubes, join

__all__ = ["airways", "clavicles", "pulmonary_vessels", "ribs"]

_STEPS = {points: np.linspace(0, 1, points, dtype=np.float32) for points in range(2, 16)}
_RIBS = 10  # pairs that a frontal radiograph shows


def _polyline(start: Array, heading: Array, bend: Array, length: Array, points: int) -> Array:
    """(T, points, 3) gently bent lines from ``start`` (T, 3) along ``heading`` (T, 3), bent by ``bend`` (T, 3)."""
    t = _STEPS[points][None, :, None]
    return start[:, None] + length[:, None, None] * (heading[:, None] * t + bend[:, None] * t * t)


def _headings(angle: Array, lean: Array) -> Array:
    """Unit vectors (T, 3): ``angle`` in the coronal plane from +x toward the feet, ``lean`` toward the back."""
    flat = np.cos(lean)
    return np.stack([np.cos(angle) * flat, np.sin(lean), np.sin(angle) * flat], axis=-1).astype(np.float32)


def _branches(
    rng: np.random.Generator, lines: Array, radius: Array, angle: Array, length: Array, children: int
) -> tuple[Array, ...]:
    """Children of every line: their start, angle, radius and length, each (T * children,)."""
    parents = np.repeat(np.arange(len(lines)), children)
    where = rng.uniform(0.25, 1.0, len(parents)) * (lines.shape[1] - 1.001)
    below, share = where.astype(int), (where % 1)[:, None]
    start = lines[parents, below] * (1 - share) + lines[parents, below + 1] * share
    turn = rng.choice([-1.0, 1.0], len(parents)) * rng.uniform(0.3, 0.9, len(parents))
    thin = radius[parents] * (1 - 0.55 * where / lines.shape[1]) * rng.uniform(0.5, 0.8, len(parents))
    return (
        start.astype(np.float32),
        angle[parents] + turn,
        thin,
        length[parents] * rng.uniform(0.35, 0.62, len(parents)),
    )


def pulmonary_vessels(anatomy: Anatomy, rng: np.random.Generator) -> Tubes:
    """Two trees of three generations, from hila of 4-6 mm radius to twigs of half a millimetre."""
    return join(*(_vessel_tree(anatomy, rng, side) for side in (0, 1)))


def _vessel_tree(anatomy: Anatomy, rng: np.random.Generator, side: int) -> Tubes:
    sign = (-1.0, 1.0)[side]
    trunks = 13
    top, base = anatomy.apex_z[side], anatomy.dome_z[side]
    hilum = np.asarray([sign * (anatomy.upper_mediastinum[side] + 8), 2, 0.56 * top + 0.44 * base + (4, -6)[side]])
    angle = np.linspace(-1.35, 1.5, trunks) + rng.normal(0, 0.12, trunks)  # up, outward, down
    angle = np.where(sign > 0, angle, np.pi - angle)
    lateral = 0.9 * anatomy.thorax_half_width - abs(hilum[0])
    height = np.where(np.sin(angle) < 0, hilum[2] - top, base + 15 - hilum[2])
    length = np.minimum(
        lateral / np.maximum(np.abs(np.cos(angle)), 0.05), height / np.maximum(np.abs(np.sin(angle)), 0.05)
    )
    length = length * rng.uniform(0.72, 0.98, trunks)
    start = hilum + rng.normal(0, 1, (trunks, 3)) * (2.5, 7, 7)
    radius = rng.uniform(3.0, 5.2, trunks)
    bundles = []
    for generation, (points, children) in enumerate(((8, 3), (5, 2), (3, 0))):
        heading = _headings(angle, rng.normal(0, (0.3, 0.45, 0.45)[generation], len(angle)))
        bend = rng.normal(0, 0.16, (len(angle), 3))
        lines = _polyline(start.astype(np.float32), heading, bend, length, points)
        taper = 1 - 0.65 * _STEPS[points]
        bundles.append(Tubes.along(lines, (np.maximum(radius, 0.5)[:, None] * taper).astype(np.float32)))
        if children:
            start, angle, radius, length = _branches(rng, lines, radius, angle, length, children)
    root = Tubes.along(
        np.asarray([[hilum - (sign * 10, 0, 14), hilum, hilum + np.asarray((sign * 5, 4, 24))]], np.float32),
        np.asarray([[6.5, 6, 4]], np.float32),
    )
    return join(root, *bundles)


def airways(anatomy: Anatomy) -> Tubes:
    """Trachea and main bronchi: air inside the mediastinum."""
    carina = 0.6 * anatomy.apex_z[0] + 0.4 * anatomy.dome_z[0] - 22
    shift = anatomy.turned(0, 8) + 3
    points = [[anatomy.turned(0, -6), -6, anatomy.shoulder_z - 60], [shift, 4, carina - 42], [shift - 2, 10, carina]]
    trachea = Tubes.along(np.asarray([points], np.float32), np.full((1, 3), 7.5, np.float32))
    right = np.asarray([[points[2], [shift - 30, 12, carina + 26]]], np.float32)
    left = np.asarray([[points[2], [shift + 38, 12, carina + 24]]], np.float32)
    return join(
        trachea,
        Tubes.along(right, np.full((1, 2), 5.2, np.float32)),
        Tubes.along(left, np.full((1, 2), 4.6, np.float32)),
    )


def ribs(anatomy: Anatomy, rng: np.random.Generator) -> Tubes:
    """Ten pairs: from the spine outward and down, round the side, then steeply down to the front."""
    spacing = (anatomy.dome_z[0] - anatomy.apex_z[0]) / 8.6
    drop_scale, steep = rng.uniform(0.85, 1.15), rng.uniform(0.9, 1.3)
    bundles = []
    for side, sign in ((0, -1.0), (1, 1.0)):
        order = np.arange(_RIBS, dtype=np.float32)[:, None]
        theta = np.linspace(0.17, 2.55, 23, dtype=np.float32)[None, :] - 0.03 * order
        drop = drop_scale * (38 + 9.5 * order)
        z = (
            anatomy.apex_z[0]
            - 3
            + spacing * order
            + drop * ((1 - np.cos(theta)) / 2) ** steep
            + rng.normal(0, 1.2, (_RIBS, 1))
        )
        _, lateral, _, depth = lung_walls(anatomy, z, side)
        x = sign * (lateral + 4) * np.sin(theta)
        y = (depth + 4) * np.cos(theta)
        points = np.stack([x + anatomy.rotation * y, y, z], axis=-1)
        radius = np.broadcast_to(np.where(order < 1, 5.4, 5.0) * (0.85 + 0.15 * np.cos(theta)), z.shape)
        bundles.append(Tubes.along(points, radius.astype(np.float32)))
    return join(*bundles)


def clavicles(anatomy: Anatomy, rng: np.random.Generator) -> Tubes:
    """Two S-shaped bones from the breastbone to the shoulders."""
    lift = rng.normal(18, 12)
    bundles = []
    for sign in (-1.0, 1.0):
        t = _STEPS[15]
        x = anatomy.turned(0, -anatomy.thorax_half_depth * 0.8) + sign * (14 + t * (anatomy.thorax_half_width * 1.05))
        y = -anatomy.thorax_half_depth * (0.75 - 0.65 * t)
        z = anatomy.apex_z[0] + 34 + rng.normal(0, 4) - lift * t - 9 * np.sin(2 * np.pi * t)
        points = np.stack([x, y, np.broadcast_to(z, x.shape)], axis=-1)
        bundles.append(
            Tubes.along(points[None].astype(np.float32), (5.6 - 1.2 * np.sin(np.pi * t))[None].astype(np.float32))
        )
    return join(*bundles)
