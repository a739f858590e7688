"""Two computations timed in turns, on a clock that the test moves."""

from __future__ import annotations

import pytest
import torch

from optiprune.structure.timing import alternated


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.order = ""
        # how much slower the machine is in the turn after that many calls
        self.slow: dict[int, float] = {}

    def __call__(self) -> float:
        return self.now

    def call(self, name: str, seconds: float):
        def run() -> None:
            self.order += name
            self.now += seconds * self.slow.get(len(self.order), 1.0)

        return run


def test_medians_of_turns_in_changing_order() -> None:
    clock = Clock()
    times = alternated(clock.call("a", 2.0), clock.call("b", 3.0), repeats=4, warmup=2, clock=clock)
    assert times == (2.0, 3.0)
    assert clock.order == "aabb" + "abbaabba"


def test_a_short_computation_is_called_often_enough_and_counted_once() -> None:
    clock = Clock()
    times = alternated(
        clock.call("a", 0.25),
        clock.call("b", 1.0),
        repeats=2,
        warmup=1,
        at_least_s=1.0,
        clock=clock,
    )
    assert times == (0.25, 1.0)
    assert clock.order == "ab" + "aaaab" + "baaaa"


def test_one_slow_moment_changes_no_median() -> None:
    clock = Clock()
    clock.slow = {5: 100.0}
    times = alternated(clock.call("a", 2.0), clock.call("b", 3.0), repeats=3, warmup=1, clock=clock)
    assert times == (2.0, 3.0)


def test_devices_are_waited_for_and_the_cpu_needs_none() -> None:
    seconds = alternated(
        lambda: torch.ones(3).sum(),
        lambda: torch.ones(3).sum(),
        repeats=1,
        warmup=1,
        at_least_s=0,
        devices=[torch.device("cpu")],
    )
    assert min(seconds) > 0


@pytest.mark.parametrize("bad", [{"repeats": 0}, {"warmup": 0}])
def test_at_least_one_of_each(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1 each"):
        alternated(lambda: None, lambda: None, **bad)
