"""Several trackers as one, and the numbers that they are given."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from optiprune.engine.records import StepRecord
from optiprune.tracking import Outcome, Tracking, TrackingError, require_installed
from optiprune.tracking.scalars import end_scalars, layer_scalars, step_scalars
from optiprune.tracking.trackers import find_spec

from .conftest import record


class Recorder:
    """Writes down what it is told; raises from some step on."""

    def __init__(self, until: float = math.inf) -> None:
        self.told: list[object] = []
        self._until = until

    def step(self, record: StepRecord) -> None:
        if record.step >= self._until:
            raise ConnectionError("the server is gone")
        self.told.append(record.step)

    def end(self, outcome: Outcome) -> None:
        self.told.append("end")

    def close(self, *, failed: bool) -> None:
        self.told.append(f"closed, failed={failed}")


def test_a_tracker_that_fails_is_left_out_and_the_rest_go_on(outcome: Outcome) -> None:
    good, bad, notes = Recorder(), Recorder(until=1), []
    with Tracking({"good": good, "bad": bad}, notes.append) as tracking:
        for i in range(3):
            tracking.step(record(i))
        tracking.end(outcome)
    assert good.told == [0, 1, 2, "end", "closed, failed=False"]
    assert bad.told == [0]
    (note,) = notes
    assert "bad" in note
    assert "the server is gone" in note


def test_a_run_that_raises_or_stops_is_closed_as_failed(outcome: Outcome) -> None:
    tracker = Recorder()
    with pytest.raises(KeyboardInterrupt), Tracking({"t": tracker}, print):
        raise KeyboardInterrupt
    assert tracker.told == ["closed, failed=True"]
    stopped = Recorder()
    with Tracking({"t": stopped}, print) as tracking:
        tracking.end(replace(outcome, failed="gave up"))
    assert stopped.told == ["end", "closed, failed=True"]


def test_without_trackers_nothing_is_called() -> None:
    assert Tracking({}, print).callback is None
    assert Tracking({"t": Recorder()}, print).callback is not None


def test_what_is_not_installed_or_not_known_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrackingError, match="no tracker 'wandb'; there are tensorboard, mlflow"):
        require_installed(["wandb"])
    monkeypatch.setattr("optiprune.tracking.trackers.find_spec", lambda name: None)
    with pytest.raises(TrackingError, match=r"pip install 'optiprune\[mlflow\]'"):
        require_installed(["mlflow"])
    assert find_spec is not None


def test_numbers_of_a_step_leave_out_what_was_not_measured() -> None:
    scalars = step_scalars(record(2, actual=None, objective=math.nan, accepted=False))
    assert scalars["step/predicted"] == -2.5
    assert scalars["step/accepted"] == 0.0
    assert not {"step/actual", "step/objective", "step/gap"} & scalars.keys()


def test_numbers_of_the_end(outcome: Outcome) -> None:
    scalars = end_scalars(outcome)
    assert scalars["end/density"] == pytest.approx(5 / 12)
    assert (scalars["dense/accuracy"], scalars["pruned/accuracy"]) == (0.9, 0.8)
    assert "end/loss_masked" not in scalars
    assert layer_scalars(outcome)[1] == {"layer/density": 0.25}
