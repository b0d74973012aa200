"""Mixed precision on any device: bfloat16 inside the network, float32 outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer, SimpleInferer
from torch import Tensor

__all__ = ["AutocastInferer"]


class AutocastInferer(Inferer):
    """Runs the network under ``torch.autocast`` and returns its output in float32.

    Stock ``amp=True`` knows CUDA only, and computes the loss in half precision too. bfloat16 has float32's range, so no
    gradient scaler is needed.

    Args:
        enabled: off makes this a plain forward pass, so that a config can switch it.
        dtype: precision of matrix products, by name.
        inferer: how the network is called; a plain call by default.
    """

    def __init__(self, enabled: bool = True, dtype: str = "bfloat16", inferer: Inferer | None = None) -> None:
        """See the class."""
        self.enabled = enabled
        self.dtype = _dtype_named(dtype)
        self.inferer = SimpleInferer() if inferer is None else inferer

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls ``network(inputs, *args, **kwargs)``.

        Args:
            inputs: images (B, C, *spatial); their device decides where autocast acts.
            network: module or callable.
            args: further positional arguments of the network.
            kwargs: further keyword arguments of the network.

        Returns:
            The network's output; half-precision tensors in it, also inside a (named) tuple, become float32.
        """
        if not self.enabled:
            return self.inferer(inputs, network, *args, **kwargs)
        with torch.autocast(inputs.device.type, dtype=self.dtype):
            output = self.inferer(inputs, network, *args, **kwargs)
        return _float32(output)


def _float32(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.float() if output.dtype in (torch.bfloat16, torch.float16) else output
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*(_float32(field) for field in output))
    if isinstance(output, (tuple, list)):
        return type(output)(_float32(entry) for entry in output)
    return output


def _dtype_named(name: str) -> torch.dtype:
    dtypes = {"bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in dtypes:
        raise ValueError(f"Precision '{name}' is not known: choose one of {sorted(dtypes)}.")
    return dtypes[name]
