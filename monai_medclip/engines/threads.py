"""How many threads compute: torch and the linear algebra beneath NumPy, SciPy and scikit-learn alike."""

from __future__ import annotations

import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types

__all__ = ["limit_threads"]


def limit_threads(number: int) -> None:
    """Sets the threads of this process, for good.

    torch has a setting of its own. BLAS takes all cores whatever that is, and on matrices as small as those of probes
    and audits its threads mostly wait for each other.

    Args:
        number: at least 1.

    Raises:
        ValueError: less than 1.
    """
    if number < 1:
        raise ValueError(f"threads={number}: at least one has to compute.")
    torch.set_num_threads(number)
    threadpool_limits(limits=number)
