"""Stop criteria as values: validation, combination, what a watch makes of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from optiprune.solvers import AnyOf, IterationLimit, NoImprovement, Target, TimeLimit, Watch
from optiprune.solvers.stop import Limits, limits


def test_no_criterion_is_no_limit() -> None:
    assert limits(None) == Limits()
    assert limits(None).unlimited
    assert not limits(TimeLimit(1)).unlimited


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (TimeLimit(2.5), Limits(time_s=2.5)),
        (IterationLimit(7), Limits(iterations=7)),
        (Target(-3.0), Limits(target=-3.0)),
        (NoImprovement(9), Limits(no_improvement=9)),
        (AnyOf(()), Limits()),
    ],
)
def test_single_criteria(stop, expected) -> None:
    assert limits(stop) == expected


def test_the_tightest_of_each_kind_counts() -> None:
    stop = TimeLimit(2) | Target(-5) | TimeLimit(1) | (Target(-4) | IterationLimit(3))
    # an energy <= -4 is reached before one <= -5
    assert limits(stop) == Limits(time_s=1, iterations=3, target=-4)


def test_criteria_are_values() -> None:
    assert TimeLimit(1) | Target(0) == AnyOf((TimeLimit(1), Target(0)))
    assert hash(TimeLimit(1)) == hash(TimeLimit(1))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TimeLimit(-1), "time limit must be >= 0"),
        (lambda: TimeLimit(math.nan), "time limit must be >= 0"),
        (lambda: IterationLimit(-1), "iteration limit must be >= 0, got -1"),
        (lambda: Target(math.nan), "must not be NaN"),
        (lambda: NoImprovement(0), "no-improvement must be >= 1, got 0"),
    ],
)
def test_nonsense_is_refused(make, words) -> None:
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("stop", [3.0, "10s", [TimeLimit(1)]])
def test_other_types_are_refused(stop) -> None:
    with pytest.raises(TypeError, match="stop must be a TimeLimit"):
        limits(stop)


def test_a_watch_keeps_the_incumbents_in_order() -> None:
    watch = Watch(limits(None))
    watch.moves = 10
    assert watch.offer(5.0)
    watch.moves = 20
    assert not watch.offer(5.0)  # no better
    assert not watch.offer(math.nan)
    assert watch.offer(4.0)
    assert watch.last_improvement == 20
    assert [e for _, e in watch.trajectory] == [5.0, 4.0]
    times = [t for t, _ in watch.trajectory]
    assert times == sorted(times)


def test_a_watch_keeps_plain_numbers_whatever_numpy_computed() -> None:
    watch = Watch(limits(None))
    assert watch.offer(np.float32(0.5))
    assert [type(e) for _, e in watch.trajectory] == [float]
    assert type(watch.best) is float


def test_a_watch_names_the_criterion_that_is_met() -> None:
    assert Watch(limits(None)).reason_to_stop() is None
    assert Watch(limits(TimeLimit(0))).reason_to_stop() == "time"
    watch = Watch(limits(IterationLimit(5) | NoImprovement(3) | Target(1.0)))
    watch.offer(2.0)
    watch.moves = 2
    assert watch.reason_to_stop() is None
    watch.moves = 3
    assert watch.reason_to_stop() == "no improvement"
    watch.offer(1.5)
    assert watch.reason_to_stop() is None
    watch.moves = 5
    assert watch.reason_to_stop() == "iterations"
    watch.offer(1.0)
    assert watch.reason_to_stop() == "target"


def test_statistics_of_a_watch() -> None:
    watch = Watch(limits(None))
    watch.moves, watch.accepted, watch.restarts = 8, 2, 1
    watch.offer(3.0)
    stats = watch.stats("completed", "a word", nodes=4)
    assert (stats.moves, stats.accepted, stats.restarts) == (8, 2, 1)
    assert stats.acceptance == 0.25
    assert stats.stop_reason == "completed"
    assert stats.message == "a word"
    assert stats.extra == {"nodes": 4}
    assert [e for _, e in stats.trajectory] == [3.0]
    assert Watch(limits(None)).stats("completed").acceptance == 0.0
