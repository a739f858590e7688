"""What happened at every step: promised against measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from optiprune.solvers.trajectory import Trajectory

from .reconstruction_result import RowBlockRecord

__all__ = ["StepRecord"]


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One batch: what the quadratic promised, what held-out data said, and whether it stayed.

    Attributes
    ----------
    step : counted from 0 over the whole run
    stage : stage of the density schedule, and one more for the search after the refit; the sweep
        over a layer's rows for reconstruction
    layers : names of the layers that the batch touches
    size : weights in the batch (variables)
    kept : how many of them are kept (the budget)
    changed : weights whose mask the answer changes
    predicted : change of the objective by the quadratic; loss units (global) or squared output
        error a position (reconstruction)
    actual : change measured on data that the batch did not see; None when nothing was measured
    accepted : whether the step stayed
    objective : held-out loss after the step; None without held-out data, and for
        reconstruction, whose errors stand in the report, layer by layer
    ridge : trust-region ridge rho of this step
    density : density over the weights that take part, after the step
    solver, status, gap : who solved it and how well; for reconstruction, whose step is a block of
        rows with a problem each, the worst of them
    solve_s, wall_s : seconds in the solver, and in the whole step
    trajectory : (seconds since the solver began, predicted change) at its incumbents, at most 24 of
        them, the last among them; of a block of rows those of the row that is promised most; empty
        where a solver tells none
    """

    step: int
    stage: int
    layers: tuple[str, ...]
    size: int
    kept: int
    changed: int
    predicted: float
    actual: float | None
    accepted: bool
    objective: float | None
    ridge: float
    density: float
    solver: str
    status: str
    gap: float | None
    solve_s: float
    wall_s: float
    trajectory: Trajectory = ()

    @classmethod
    def of_block(cls, block: RowBlockRecord, step: int, density: float) -> StepRecord:
        """A block of rows of a reconstruction as one step."""
        return cls(
            step=step,
            stage=block.sweep,
            layers=(block.layer,),
            size=block.size,
            kept=block.kept,
            changed=block.changed,
            predicted=block.predicted,
            actual=block.holdout,
            accepted=block.rows_accepted > 0 or block.rows_changed == 0,
            objective=None,
            ridge=0.0,
            density=density,
            solver=block.solver,
            status=block.status,
            gap=block.gap,
            solve_s=block.solve_s,
            wall_s=block.wall_s,
            trajectory=block.trajectory,
        )

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> StepRecord:
        """The record that `as_dict` made the table of; JSON may lie between."""
        points = tuple((t, e) for t, e in table.get("trajectory", ()))
        return cls(**{**table, "layers": tuple(table["layers"]), "trajectory": points})

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)
