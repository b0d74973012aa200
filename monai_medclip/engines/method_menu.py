"""The methods that a person at a viewer can choose from: those that explain this network within seconds."""

from __future__ import annotations

from typing import Any

from ..explainers import (
    AttentionGradCAM,
    Chefer,
    Explainer,
    GradCAM,
    GradECLIP,
    MedGradECLIP,
    SliceWise,
    TokenGradCAM,
    recommended,
)
from ..networks import SliceEncoder

__all__ = ["CLS_OPTIONS", "PREFIX_METHOD", "method_menu"]

PREFIX_METHOD = "Grad-CAM (patch tokens)"
CLS_OPTIONS = ("default", "exclude", "include")  # of the class token, in the mean gradient of Grad-CAM on patch tokens


def method_menu(classifier: Any, *, cls: str = "default") -> dict[str, Explainer]:
    """Methods by name that explain this classifier, the recommended one first.

    Args:
        classifier: what is to be explained.
        cls: whether the class token counts in the mean gradient of Grad-CAM on patch tokens, see `TokenGradCAM`; other
            methods have no such choice.

    Raises:
        ValueError: another word for `cls`.
    """
    if cls not in CLS_OPTIONS:
        raise ValueError(f"cls={cls!r}: use one of {', '.join(CLS_OPTIONS)}.")
    offered: dict[str, Explainer] = {
        "Grad-ECLIP": GradECLIP(),
        "MedGrad E-CLIP": MedGradECLIP(),
        "Chefer": Chefer(),
        PREFIX_METHOD: TokenGradCAM(include_prefix=cls == "include"),
        "Grad-CAM (attention)": AttentionGradCAM(),
        "Grad-CAM": GradCAM(),
    }
    if isinstance(classifier.image_encoder, SliceEncoder):
        offered = {name: SliceWise(method) for name, method in offered.items()}
    found: dict[str, Explainer] = {"recommended": recommended(classifier)}
    return found | {name: method for name, method in offered.items() if _explains(method, classifier)}


def _explains(method: Explainer, classifier: Any) -> bool:
    try:
        method.check(classifier)
    except TypeError:  # the method says why; here it is just not on the menu
        return False
    return True
