"""The phantom's CT: the same thorax, lesion for lesion, sampled as voxels in Hounsfield units."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from monai_medclip.data.phantom_anatomy import Anatomy, body_interval
from monai_medclip.data.phantom_bones import scapula_interval, spine_density, spine_interval
from monai_medclip.data.phantom_geometry import HU, Array, Interval, Plane, Tubes, interval
from monai_medclip.data.phantom_lesions import Lesion
from monai_medclip.data.phantom_scene import PLEURA_MM, Chest, healthy_chest, with_lesions
from monai_medclip.data.phantom_tubes import airways, clavicles, pulmonary_vessels, ribs
from monai_medclip.data.phantom_xray import FIELD_OF_VIEW_MM, stomach_gas

__all__ = ["CT", "render_ct"]

HEIGHT_MM = 330.0  # from the neck to below the lungs
_TOP_MM = -178.0  # z of the highest slice's upper face


class CT(NamedTuple):
    """A chest CT, head first, as a radiologist looks at it.

    Attributes:
        volume: (slices, rows, columns) float32 HU; slice 0 at the head, row 0 = front, column 0 = the patient's right.
        masks: (slices, rows, columns) bool per finding shown.
        spacing_mm: (slices, rows, columns) mm.
        origin_mm: (x, y, z) of the first voxel's centre in DICOM patient coordinates (left, back, head).
    """

    volume: Array
    masks: dict[str, NDArray[np.bool_]]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]


class _Grid(NamedTuple):
    """Voxels: the coronal plane that the slices share, and the depth axis."""

    plane: Plane  # (slices, columns)
    y: Array  # (rows,) mm to the back
    dy: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns)."""
        return self.plane.shape[0], len(self.y), self.plane.shape[1]

    def share(self, part: Interval) -> Array:
        """(slices, rows, columns) share of each voxel that lies in a part, 0 to 1."""
        y = self.y[None, :, None]
        last, first = np.minimum(part.back[:, None], y + self.dy / 2), np.maximum(part.front[:, None], y - self.dy / 2)
        return np.clip((last - first) / self.dy, 0, 1)


def render_ct(
    anatomy: Anatomy,
    shown: Collection[Lesion],
    *,
    shape: tuple[int, int, int],
    seed: tuple[int, int],
    noise_hu: float = 18.0,
) -> CT:
    """Voxelise a patient with the findings ``shown``.

    Args:
        anatomy: the patient.
        shown: the findings to draw.
        shape: (slices, rows, columns) of a box 330 mm high and 350 mm wide and deep.
        seed: (phantom seed, patient index): vessels, ribs and noise are those of the radiograph.
        noise_hu: standard deviation of the noise.
    """
    grid = _grid(shape)
    chest = with_lesions(healthy_chest(anatomy, grid.plane), anatomy, shown, grid.plane)
    volume = np.full(grid.shape, HU["air"], np.float32)
    body = grid.share(body_interval(anatomy, grid.plane))
    _blend(volume, body, HU["soft"])
    masks = _fill_chest(volume, grid, chest, anatomy, seed)
    gas = stomach_gas(anatomy, grid.plane, np.random.default_rng([*seed, 24]))
    _blend(volume, grid.share(interval(-20.0, gas / 2)), HU["air"])
    _blend(volume, _tube_share(airways(anatomy), grid) * body, HU["air"])
    _add_bones(volume, grid, anatomy, body, np.random.default_rng([*seed, 22]))
    volume += noise_hu * np.random.default_rng([*seed, 25, *shape]).standard_normal(shape, dtype=np.float32)
    spacing = (HEIGHT_MM / shape[0], FIELD_OF_VIEW_MM / shape[1], FIELD_OF_VIEW_MM / shape[2])
    first_z = -float(grid.plane.z[0, 0])
    return CT(volume, masks, spacing, (float(grid.plane.x[0, 0]), float(grid.y[0]), first_z))


def _grid(shape: tuple[int, int, int]) -> _Grid:
    slices, rows, columns = shape
    pixel = (FIELD_OF_VIEW_MM / columns, HEIGHT_MM / slices)
    plane = Plane.make((slices, columns), pixel, centre_mm=(0.0, _TOP_MM + HEIGHT_MM / 2))
    dy = FIELD_OF_VIEW_MM / rows
    return _Grid(plane, ((np.arange(rows) - (rows - 1) / 2) * dy).astype(np.float32), dy)


def _blend(volume: Array, share: Array, hu: float | Array) -> None:
    """Let a tissue of ``hu`` take its share of every voxel."""
    volume += share * (hu - volume)


def _fill_chest(
    volume: Array, grid: _Grid, chest: Chest, anatomy: Anatomy, seed: tuple[int, int]
) -> dict[str, NDArray[np.bool_]]:
    """Lungs, vessels, lesions, fluid, heart and diaphragm, in the order in which one displaces another."""
    pleura, lung = grid.share(chest.pleura), grid.share(chest.lung)
    solid = np.maximum(grid.share(chest.mediastinum), grid.share(chest.abdomen))
    _blend(volume, pleura, HU["air"] if chest.inner is not None else anatomy.lung_hu)
    inner = lung
    if chest.inner is not None:
        line = anatomy.lung_hu + (HU["soft"] - anatomy.lung_hu) * PLEURA_MM / chest.line_mm
        _blend(volume, lung, line)
        inner = grid.share(chest.inner)
    _blend(volume, inner, anatomy.lung_hu)
    vessels = _tube_share(pulmonary_vessels(anatomy, np.random.default_rng([*seed, 21])), grid)
    _blend(volume, vessels * inner, HU["blood"])
    masks: dict[str, NDArray[np.bool_]] = {}
    fluid = np.zeros(1, np.float32) if chest.fluid is None else grid.share(chest.fluid) * pleura
    for lesion, (slices, columns), part in chest.focal:
        where = (slices, slice(None), columns)
        here = Plane(grid.plane.x[slices, columns], grid.plane.z[slices], (0, 0), (1, 1))
        share = _Grid(here, grid.y, grid.dy).share(part) * lung[where]
        _blend(volume[where], share, lesion.hu)
        masks[lesion.finding] = np.zeros(grid.shape, bool)
        masks[lesion.finding][where] = share * (1 - solid[where]) > 0.5
        if chest.fluid is not None:
            masks[lesion.finding] &= fluid < 0.5
    if chest.fluid is not None:
        _blend(volume, fluid, HU["fluid"])
        masks["pleural effusion"] = fluid * (1 - solid) > 0.5
    if chest.inner is not None:
        masks["pneumothorax"] = (pleura - lung) * (1 - solid) * (1 - fluid) > 0.5
    if chest.enlarged:
        masks["cardiomegaly"] = grid.share(chest.heart) > 0.5
    _blend(volume, solid, HU["blood"])
    return masks


def _add_bones(volume: Array, grid: _Grid, anatomy: Anatomy, body: Array, rng: np.random.Generator) -> None:
    density = spine_density(anatomy, grid.plane)[:, None]
    _blend(volume, grid.share(spine_interval(anatomy, grid.plane)), HU["soft"] + (HU["spine"] - HU["soft"]) * density)
    cage = np.maximum(_tube_share(ribs(anatomy, rng), grid), _tube_share(clavicles(anatomy, rng), grid))
    cage = np.maximum(cage, grid.share(scapula_interval(anatomy, grid.plane, 10.0)))
    _blend(volume, cage * body, HU["rib"])


def _tube_share(tubes: Tubes, grid: _Grid) -> Array:
    """(slices, rows, columns) share of each voxel that lies in a bundle of tubes."""
    total = np.zeros(grid.shape, np.float32)
    z, x = grid.plane.z[:, 0], grid.plane.x[0]
    voxel = float(np.mean([grid.dy, *grid.plane.pixel_mm]))
    axes = (x, grid.y, z)
    low, high = np.minimum(tubes.start, tubes.end), np.maximum(tubes.start, tubes.end)
    margin = tubes.radius[:, None] + voxel
    first = np.stack([np.searchsorted(axis, low[:, k] - margin[:, 0]) for k, axis in enumerate(axes)], axis=1)
    last = np.stack([np.searchsorted(axis, high[:, k] + margin[:, 0]) for k, axis in enumerate(axes)], axis=1)
    for start, end, radius, (x0, y0, z0), (x1, y1, z1) in zip(*tubes, first, last, strict=True):
        dx, dy, dz = x[x0:x1] - start[0], (grid.y[y0:y1] - start[1])[:, None], (z[z0:z1] - start[2])[:, None, None]
        run = end - start
        along = (dx * run[0] + dy * run[1] + dz * run[2]) / max(float(run @ run), 1e-6)
        np.minimum(np.maximum(along, 0, out=along), 1, out=along)  # np.clip costs more than these patches themselves
        away = np.square(dx - along * run[0])
        away += np.square(dy - along * run[1])
        away += np.square(dz - along * run[2])
        share = (radius - np.sqrt(away, out=away)) / voxel + 0.5
        np.minimum(np.maximum(share, 0, out=share), 1, out=share)
        share *= min(1.0, 2 * radius / voxel)
        patch = total[z0:z1, y0:y1, x0:x1]
        np.maximum(patch, share, out=patch)
    return total
