"""The phantom's radiograph: Beer-Lambert projection, scatter, noise and a digital detector's display curve."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from monai_medclip.data.phantom_anatomy import Anatomy, body_interval
from monai_medclip.data.phantom_bones import scapula_interval, spine_density, spine_interval
from monai_medclip.data.phantom_geometry import Array, Interval, Plane, project, tissue
from monai_medclip.data.phantom_lesions import Lesion
from monai_medclip.data.phantom_scene import healthy_chest, with_lesions
from monai_medclip.data.phantom_tubes import airways, clavicles, pulmonary_vessels, ribs

__all__ = ["FIELD_OF_VIEW_MM", "XRay", "body_attenuation", "render_xray", "stomach_gas"]

FIELD_OF_VIEW_MM = 350.0  # of the square detector: 2.73 mm per pixel at 128 pixels, 1.56 at 224
_FOCUS_MM = 0.9  # blur of focal spot and detector


class XRay(NamedTuple):
    """A frontal radiograph.

    Attributes:
        image: (rows, columns) float32 in [0, 1]; bright is dense; row 0 = head, column 0 = the patient's right.
        masks: (rows, columns) bool per finding shown: where its projection lies.
        spacing_mm: mm per pixel at the patient.
    """

    image: Array
    masks: dict[str, NDArray[np.bool_]]
    spacing_mm: float


class _Exposure(NamedTuple):
    """How a patient stands before the detector and how the picture is taken."""

    centre_mm: tuple[float, float]
    shear: float
    scapula_pull: float
    scatter: float
    quanta: float
    flatten: float
    black: float
    white: float
    gamma: float
    heel: float
    texture: float
    marker: tuple[float, float, float]
    lines: float


def _exposure(rng: np.random.Generator) -> _Exposure:
    return _Exposure(
        centre_mm=(rng.normal(0, 9), rng.normal(-4, 10)),
        shear=rng.normal(0, 0.035),
        scapula_pull=rng.uniform(-22, 42),
        scatter=rng.uniform(0.2, 0.4),
        quanta=rng.uniform(0.003, 0.009),
        flatten=rng.uniform(0.65, 0.85),
        black=rng.uniform(-0.2, -0.02),
        white=rng.uniform(0.95, 1.18),
        gamma=rng.uniform(0.85, 1.2),
        heel=rng.normal(0, 0.04),
        texture=rng.uniform(0.006, 0.015),
        marker=(rng.random(), rng.uniform(8, 40), rng.uniform(8, 40)),
        lines=rng.random(),
    )


def render_xray(
    anatomy: Anatomy, lesions: Collection[Lesion], shown: Collection[Lesion], *, image_size: int, seed: tuple[int, int]
) -> XRay:
    """Take the radiograph of a patient who has ``lesions``, of which only ``shown`` are drawn.

    Scatter, exposure and noise follow the patient without any lesion, so that two pictures with different ``shown``
    differ only where a lesion is.

    Args:
        anatomy: the patient.
        lesions: all the patient's findings.
        shown: those to draw.
        image_size: rows and columns.
        seed: (phantom seed, patient index).
    """
    exposure = _exposure(np.random.default_rng([*seed, 20]))
    pixel = FIELD_OF_VIEW_MM / image_size
    plane = Plane.make((image_size, image_size), (pixel, pixel), centre_mm=exposure.centre_mm, shear=exposure.shear)
    vessels = project(pulmonary_vessels(anatomy, np.random.default_rng([*seed, 21])), plane)
    frame, body = body_attenuation(anatomy, plane, seed, exposure.scapula_pull)
    noise = np.random.default_rng([*seed, 23, image_size])
    healthy = healthy_chest(anatomy, plane)
    texture = _texture(noise, plane, exposure) * healthy.free(healthy.lung) / anatomy.thorax_half_depth
    base = frame + texture + healthy.log_attenuation(vessels, anatomy.lung_hu)
    chest, full = healthy, base
    if shown:
        chest = with_lesions(healthy, anatomy, shown, plane)
        full = frame + texture + chest.log_attenuation(vessels, anatomy.lung_hu)
    grain = noise.standard_normal(plane.shape, dtype=np.float32)
    image = _develop(base, full, body, grain, exposure, pixel)
    return XRay(image, chest.masks(), pixel)


def body_attenuation(
    anatomy: Anatomy, plane: Plane, seed: tuple[int, int], scapula_pull: float
) -> tuple[Array, Interval]:
    """-log(intensity) of body, bones and gas as if the chest were solid soft tissue, and the body itself."""
    rng = np.random.default_rng([*seed, 22])
    soft, rib, air = tissue("soft"), tissue("rib"), tissue("air")
    body = body_interval(anatomy, plane)
    depth = body.thickness
    cage = project(ribs(anatomy, rng), plane, hollow=True) + 1.6 * project(clavicles(anatomy, rng), plane, hollow=True)
    cage = (cage + scapula_interval(anatomy, plane, scapula_pull).thickness) * np.minimum(depth / 60, 1)
    spine = spine_interval(anatomy, plane).thickness * spine_density(anatomy, plane)
    total = soft * depth + (rib - soft) * cage + (tissue("spine") - soft) * spine
    total = total + (air - soft) * np.minimum(project(airways(anatomy), plane), 18)
    gas = stomach_gas(anatomy, plane, np.random.default_rng([*seed, 24]))
    return total + (air - soft) * gas, body


def stomach_gas(anatomy: Anatomy, plane: Plane, rng: np.random.Generator) -> Array:
    """(rows, columns) mm of air in stomach and bowel under the left dome."""
    x, below, radius = anatomy.stomach_air
    gas = np.zeros(plane.shape, np.float32)
    bubbles = [(x, anatomy.dome_z[1] + below + 0.4 * radius, radius)] if radius > 6 else []
    for _ in range(rng.integers(0, 4)):
        bubbles.append((rng.uniform(20, 120), anatomy.dome_z[1] + rng.uniform(34, 80), rng.uniform(6, 14)))
    for bx, bz, size in bubbles:
        where, part = plane.window(bx, bz, 1.6 * size + 4)
        dx, dz = (
            (part.x - bx) / (1.35 * size),
            (part.z - bz) / (0.62 * size),
        )
        gas[where] = np.maximum(gas[where], 1.3 * size * np.clip(1.15 * (1 - dx * dx - dz * dz), 0, 1) ** 0.7)
    return gas


def _texture(rng: np.random.Generator, plane: Plane, exposure: _Exposure) -> Array:
    """Vessels too fine to be drawn one by one: lung markings as noise of about 4 to 12 mm."""
    rows, pixel = plane.shape[0], plane.pixel_mm[0]
    fine = gaussian_filter(rng.standard_normal(plane.shape, dtype=np.float32), 2.0 / pixel, truncate=2.5)
    coarse = _widen(rows, int(FIELD_OF_VIEW_MM / 9))
    noise = coarse @ rng.standard_normal((coarse.shape[1],) * 2, dtype=np.float32) @ coarse.T
    return exposure.texture * (fine / max(float(fine.std()), 1e-6) + 0.8 * noise)


@lru_cache(maxsize=32)
def _widen(rows: int, side: int) -> Array:
    """(rows, side) matrix of linear interpolation from a coarse axis to a fine one."""
    place = np.clip((np.arange(rows, dtype=np.float32) + 0.5) * side / rows - 0.5, 0, side - 1)
    return np.maximum(1 - np.abs(place[:, None] - np.arange(side, dtype=np.float32)), 0).astype(np.float32)


@lru_cache(maxsize=32)
def _narrow(rows: int, side: int, sigma: float) -> Array:
    """(side, rows) matrix that blurs with ``sigma`` pixels and samples coarsely."""
    place = (np.arange(side, dtype=np.float32) + 0.5) * rows / side - 0.5
    weights = np.exp(-0.5 * ((place[:, None] - np.arange(rows, dtype=np.float32)) / sigma) ** 2)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _smooth(image: Array, sigma_mm: float, pixel: float) -> Array:
    """A wide Gaussian blur of a square image, by way of a coarse grid."""
    rows = image.shape[0]
    side = max(int(rows * pixel / sigma_mm * 2.5), 2)
    narrow, widen = _narrow(rows, side, sigma_mm / pixel), _widen(rows, side)
    return widen @ (narrow @ image @ narrow.T) @ widen.T


def _develop(base: Array, full: Array, body: Interval, grain: Array, exposure: _Exposure, pixel: float) -> Array:
    """From -log(intensity) to display values in [0, 1]; everything adaptive is taken from ``base``."""
    inside = np.sort(base[body.back > body.front][::4])
    dark = inside[int(0.06 * len(inside))]
    primary = np.exp(dark - base)
    scattered = exposure.scatter * _smooth(np.minimum(primary, 3), 22, pixel)
    healthy = -np.log(primary + scattered)
    local = exposure.flatten * np.maximum(_smooth(np.maximum(healthy, -1.5), 26, pixel), -1)
    order = np.sort((healthy - local)[body.back > body.front][::4])
    low, high = order[int(0.02 * len(order))], order[int(0.97 * len(order))]
    intensity = np.exp(dark - gaussian_filter(full, _FOCUS_MM / pixel, truncate=2.5)) + scattered
    signal = exposure.quanta / pixel * grain / np.sqrt(np.maximum(intensity, 0.02)) - np.log(intensity) - local
    value = (signal - low) / max(float(high - low), 0.2)
    value = (value - exposure.black) / (exposure.white - exposure.black)
    value = value + exposure.heel * np.linspace(-1, 1, len(value), dtype=np.float32)[:, None]
    return (np.clip(value, 0, 1) ** exposure.gamma).astype(np.float32)
