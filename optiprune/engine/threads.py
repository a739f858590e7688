"""A fixed number of threads inside a run, so that sums come out the same in every environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

__all__ = ["fixed_threads", "usable_cores"]


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def fixed_threads(n: int) -> Iterator[None]:
    """torch and BLAS run with n threads inside (0: all usable cores), as before outside.

    The order in which a sum is taken depends on the number of threads; a search turns differences
    in the last bit into other masks. Hence the number is part of the config, not of the
    environment.
    """
    count = n or usable_cores()
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
