"""What is logged, by name: the same numbers wherever they go."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from optiprune.engine.records import StepRecord
from optiprune.engine.result import RunReport

__all__ = ["Outcome", "end_scalars", "layer_scalars", "step_scalars"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes
    ----------
    report : of the run
    dense, pruned : the user's numbers before and after; empty without
    failed : why the run stopped early; "" if it did not
    files : that are small and tell about the run
    """

    report: RunReport
    dense: Mapping[str, float] = field(default_factory=dict)
    pruned: Mapping[str, float] = field(default_factory=dict)
    failed: str = ""
    files: tuple[Path, ...] = ()


def step_scalars(record: StepRecord) -> dict[str, float]:
    """Of one step; what was not measured, and what is not finite, is left out."""
    return _finite(
        {
            "step/predicted": record.predicted,
            "step/actual": record.actual,
            "step/objective": record.objective,
            "step/accepted": float(record.accepted),
            "step/changed": float(record.changed),
            "step/density": record.density,
            "step/ridge": record.ridge,
            "step/gap": record.gap,
            "step/solve_s": record.solve_s,
            "step/wall_s": record.wall_s,
        }
    )


def end_scalars(outcome: Outcome) -> dict[str, float]:
    """Of the whole run."""
    report = outcome.report
    return _finite(
        {
            "end/density": report.density,
            "end/loss_dense": report.loss_dense,
            "end/loss_initial": report.loss_initial,
            "end/loss_masked": report.loss_masked,
            "end/loss_final": report.loss_final,
            "end/steps": float(report.steps),
            "end/accepted": float(report.accepted),
            "end/seconds": report.seconds,
            **{f"dense/{name}": value for name, value in outcome.dense.items()},
            **{f"pruned/{name}": value for name, value in outcome.pruned.items()},
        }
    )


def layer_scalars(outcome: Outcome) -> list[dict[str, float]]:
    """Of every layer, in the order of the report."""
    return [
        _finite(
            {
                "layer/density": layer.density,
                "layer/error_initial": layer.error_initial,
                "layer/error_masked": layer.error_masked,
                "layer/error_refit": layer.error_refit,
                "layer/holdout_initial": layer.holdout_initial,
                "layer/holdout_masked": layer.holdout_masked,
                "layer/holdout_refit": layer.holdout_refit,
            }
        )
        for layer in outcome.report.layers
    ]


def _finite(values: Mapping[str, float | None]) -> dict[str, float]:
    return {k: float(v) for k, v in values.items() if v is not None and math.isfinite(v)}
