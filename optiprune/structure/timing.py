"""Which of two computations is faster, measured side by side."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from statistics import median

import torch

__all__ = ["Measure", "alternated"]

# the two computations -> seconds of each
Measure = Callable[[Callable[[], object], Callable[[], object]], tuple[float, float]]


def alternated(
    first: Callable[[], object],
    second: Callable[[], object],
    *,
    repeats: int = 20,
    warmup: int = 3,
    at_least_s: float = 1e-3,
    devices: Collection[torch.device] = (),
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Median wall-clock seconds of one call of each, taken in turns.

    What slows a machine for a while slows both, so their ratio can be trusted where the numbers
    themselves cannot. Which of them goes first changes from turn to turn.

    Parameters
    ----------
    repeats : measurements of each
    warmup : calls of each that do not count
    at_least_s : seconds that one measurement lasts: a faster computation is called several times
    devices : that the computations run on, beside the CPU: a measurement waits for them
    clock : tells seconds

    Raises
    ------
    ValueError
        ``repeats`` or ``warmup`` is below 1.
    """
    if repeats < 1 or warmup < 1:
        raise ValueError(f"repeats={repeats} and warmup={warmup}: at least 1 each")
    both = (first, second)

    def timed(function: Callable[[], object], calls: int) -> float:
        _wait(devices)
        start = clock()
        for _ in range(calls):
            function()
        _wait(devices)
        return (clock() - start) / calls

    calls = []
    for function in both:
        once = [timed(function, 1) for _ in range(warmup)]
        calls.append(max(1, math.ceil(at_least_s / max(min(once), 1e-9))))
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats):
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            taken[which].append(timed(both[which], calls[which]))
    return median(taken[0]), median(taken[1])


def _wait(devices: Collection[torch.device]) -> None:
    """Until the work that was handed to them is done."""
    for device in devices:
        if device.type == "mps":
            torch.mps.synchronize()
        elif device.type != "cpu":
            getattr(torch, device.type).synchronize(device)
