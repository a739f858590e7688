"""A clock that counts work: seconds of the real one depend on what else the machine does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch.utils.flop_counter import FlopCounterMode

from optiprune.structure.timing import Measure


def by_work(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    out = []
    for run in (first, second):
        with FlopCounterMode(display=False) as counter:
            run()
        out.append(counter.get_total_flops() / 2e9)
    return out[0], out[1]


@pytest.fixture
def work_clock() -> Measure:
    """A multiply-add takes a nanosecond."""
    return by_work
