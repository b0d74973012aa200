"""How one case becomes tensors: reading, windowing, orienting, augmenting, and the report's way to token ids."""

from __future__ import annotations

from monai_medclip.transforms.display_order import CT_DISPLAY_AXES, DisplayOrderd, patient_orientation

__all__ = [
    "CT_DISPLAY_AXES",
    "DisplayOrderd",
    "patient_orientation",
]
