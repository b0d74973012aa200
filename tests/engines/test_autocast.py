from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from monai_medclip.engines import AutocastInferer


class Pair(NamedTuple):
    left: torch.Tensor
    count: torch.Tensor


class Spy(nn.Module):
    """A linear layer that notes the precision of its product."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, inputs: torch.Tensor) -> Pair:
        product = self.linear(inputs)
        self.dtype = product.dtype
        return Pair(product, torch.tensor([len(inputs)]))


def test_computes_in_bfloat16_and_returns_float32_in_the_same_named_tuple() -> None:
    network, inputs = Spy(), torch.randn(3, 8)
    output: Any = AutocastInferer()(inputs, network)
    assert network.dtype is torch.bfloat16
    assert isinstance(output, Pair)
    assert output.left.dtype is torch.float32
    assert output.count.dtype is torch.int64
    exact = network(inputs).left
    assert 0 < (output.left - exact).abs().max() < 0.05


def test_disabled_is_a_plain_call() -> None:
    network, inputs = Spy(), torch.randn(3, 8)
    assert torch.equal(AutocastInferer(enabled=False)(inputs, network).left, network(inputs).left)
    assert network.dtype is torch.float32


def test_unknown_precision_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"'float8' is not known.*bfloat16"):
        AutocastInferer(dtype="float8")
