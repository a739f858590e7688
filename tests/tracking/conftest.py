"""A small outcome by hand, and records."""

from __future__ import annotations

import pytest

from optiprune.engine.records import StepRecord
from optiprune.engine.result import LayerReport, RunReport
from optiprune.tracking import Outcome


def record(step: int, **changes: object) -> StepRecord:
    values: dict = {
        "step": step,
        "stage": 0,
        "layers": ("a",),
        "size": 4,
        "kept": 2,
        "changed": 1,
        "predicted": -0.5 - step,
        "actual": -0.25,
        "accepted": True,
        "objective": 2.0 - step,
        "ridge": 0.1,
        "density": 0.5,
        "solver": "tabu",
        "status": "feasible",
        "gap": None,
        "solve_s": 0.1,
        "wall_s": 0.2,
    }
    return StepRecord(**{**values, **changes})


@pytest.fixture
def outcome() -> Outcome:
    layers = (
        LayerReport("a", "a.weight", (2, 4), 4, 8, 1.0, 0.5, 0.25),
        LayerReport("b", "b.weight", (2, 2), 1, 4),
    )
    report = RunReport(
        "global", "tabu", 5 / 12, layers, 1.0, 3.0, None, 2.0, 3, 2, 64, 16, 1.5, 0, ("mind that",)
    )
    return Outcome(report, {"accuracy": 0.9}, {"accuracy": 0.8})
