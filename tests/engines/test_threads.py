from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from monai_medclip.engines import limit_threads


@pytest.fixture(autouse=True)
def _threads_are_given_back() -> Iterator[None]:
    before = torch.get_num_threads()
    with threadpool_limits():
        yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("number", [1, 2])
def test_torch_and_blas_take_as_many_threads(number: int) -> None:
    limit_threads(number)
    assert torch.get_num_threads() == number
    assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {number}


def test_no_thread_is_refused() -> None:
    with pytest.raises(ValueError, match="threads=0: at least one"):
        limit_threads(0)
