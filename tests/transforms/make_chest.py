"""A chest in millimeters with known lungs, windpipe, table and bowel gas, sampled on any grid, oblique ones too."""

from __future__ import annotations

from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation

SOFT, LUNG, AIR, TABLE = 40.0, -850.0, -1000.0, 200.0


class Chest(NamedTuple):
    """Volumes (1, *spatial) on one grid."""

    hu: MetaTensor
    body: np.ndarray  # (*spatial) bool, without the table
    right: np.ndarray
    left: np.ndarray
    nodule: np.ndarray  # at the pleura of the right lung, part of it
    windpipe: np.ndarray

    @property
    def lungs(self) -> np.ndarray:
        """Both."""
        return self.right | self.left


def ball(place, center, radii):
    """Points (..., 3) within an ellipsoid."""
    return (((place - center) / radii) ** 2).sum(-1) < 1


def make_chest(
    *, spacing=(2.0, 2.0, 4.0), axes="LPS", tilt_deg=0.0, right=True, left=True, lung_radius=45.0, noise=15.0, gas=20.0
) -> Chest:
    """Sample the chest, 300 mm wide, whose lungs are ellipsoids around (-70, 0, 0) and (70, 0, 0) mm, in LPS."""
    shape = [int(mm / step) for mm, step in zip((330, 250, 210), spacing)]
    lps = np.diag([*spacing, 1.0])
    lps[:3, :3] = Rotation.from_euler("xyz", [tilt_deg, 0, tilt_deg / 2], degrees=True).as_matrix() @ lps[:3, :3]
    lps[:3, 3] = -lps[:3, :3] @ (np.array(shape) - 1) / 2
    place = nib.affines.apply_affine(lps, np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1))
    x, y, z = np.moveaxis(place, -1, 0)
    body = (x / 150) ** 2 + (y / 105) ** 2 < 1
    nodule = ball(place, (-64 - lung_radius, 0, 0), 7.0) & ball(place, (-70, 0, 0), (lung_radius, 70, 85))
    lungs = [ball(place, (side, 0, 0), (lung_radius, 70, 85)) for side in (-70, 70)]
    pipe = ((x**2 + y**2 < 81) & (z > 20)) | ((y**2 + (z - 25) ** 2 < 49) & (np.abs(x) < 70))
    hu = np.where(body, SOFT, AIR)
    hu[(np.abs(x) < 160) & (y > 104) & (y < 107)] = TABLE
    hu[ball(place, (0, -70, -60), gas)] = AIR
    if right and left and lung_radius < 60:
        hu[pipe] = AIR
    for shown, lung in zip((right, left), lungs):
        hu[lung & shown] = LUNG
    hu[nodule] = SOFT
    hu += noise * np.random.default_rng(0).standard_normal(hu.shape)
    ornt = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("LPS"), nib.orientations.axcodes2ornt(axes))
    affine = np.diag([-1.0, -1, 1, 1]) @ lps @ nib.orientations.inv_ornt_aff(ornt, shape)
    parts = (body, lungs[0] & right, lungs[1] & left, nodule, pipe & ~lungs[0] & ~lungs[1])
    hu, *masks = (nib.orientations.apply_orientation(part, ornt) for part in (hu, *parts))
    return Chest(MetaTensor(torch.tensor(hu.astype(np.float32))[None], affine=torch.tensor(affine)), *masks)


def dice(a, b) -> float:
    """Overlap of two masks, 0 to 1."""
    a, b = np.asarray(a) > 0, np.asarray(b) > 0
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())
