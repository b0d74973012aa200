"""The method to begin with, and why."""

from __future__ import annotations

from monai_medclip.explainers.gated_propagation import GatedPropagation

__all__ = ["recommended"]


def recommended(*, verify: bool = False) -> GatedPropagation:
    """The method that localized best on validation phantoms: `GatedPropagation`.

    On other networks it is unproven: judge it there before trusting it.
    """
    return GatedPropagation(verify=verify)
