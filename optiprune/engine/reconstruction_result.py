"""What a reconstruction returns: masks, values, and what every step promised and gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from optiprune.solvers.trajectory import Trajectory

from .window_tuning import WindowReport

__all__ = ["LayerErrors", "ReconstructionResult", "RowBlockRecord"]


@dataclass(frozen=True, slots=True)
class RowBlockRecord:
    """A block of rows of one layer, each row decided by a problem of its own.

    Errors are reconstruction errors (squared output units a position), summed over rows.

    Attributes
    ----------
    layer, first_row, last_row : which rows, ``first_row <= r < last_row``
    sweep, round : counted from 0; a sweep over rows longer than a batch takes several rounds
    size : variables of all problems together
    kept : how many of them are kept
    rows_changed : rows for which the solver proposed another mask
    rows_accepted : rows of these that stayed
    changed : weights whose mask changed, in accepted rows
    predicted : change of the error that the problems promise for the rows proposed
    train, holdout : change measured for the same rows on the calibration and the held-out Gram
        matrix (None without held-out data)
    accepted_train, accepted_holdout : the same over the accepted rows alone
    solver : name of the solver that ran
    status, gap : the worst of the block's solutions: "optimal" if all are; the largest gap, None if
        one is not known
    solve_s : seconds in building and solving, summed over threads
    wall_s : the block's share of the wall-clock time in which its round was solved and judged
    trajectory : (seconds since the solver began, change) at the incumbents of the row that is
        promised most; empty where the solver tells none
    """

    layer: str
    first_row: int
    last_row: int
    sweep: int
    round: int
    size: int
    kept: int
    rows_changed: int
    rows_accepted: int
    changed: int
    predicted: float
    train: float
    holdout: float | None
    accepted_train: float
    accepted_holdout: float | None
    solver: str
    status: str
    gap: float | None
    solve_s: float
    wall_s: float
    trajectory: Trajectory = ()

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> RowBlockRecord:
        """The record that `asdict` made the table of; JSON may lie between."""
        points = tuple((t, e) for t, e in table.get("trajectory", ()))
        return cls(**{**table, "trajectory": points})


@dataclass(frozen=True, slots=True)
class LayerErrors:
    """Reconstruction errors of one layer, summed over rows, in squared output units a position.

    Attributes
    ----------
    target : mean square of the dense output without bias: an error of this size is no output at all
    initial, masked, refitted : error with the first mask, with the chosen one, and after refit
        (None without refit)
    holdout_* : the same on held-out data (None without)
    damping : of the refit, in units of the Gram matrix' mean diagonal; None without refit
    refit_failed, refit_damped, refit_rejected : rows whose refit failed, that needed more damping
        than configured, that were undone because their held-out error rose
    """

    layer: str
    parameter: str
    rows: int
    cols: int
    density: float
    changed: int
    target: float
    initial: float
    masked: float
    refitted: float | None
    holdout_initial: float | None
    holdout_masked: float | None
    holdout_refitted: float | None
    damping: float | None
    refit_failed: int
    refit_damped: int
    refit_rejected: int
    gram_s: float
    search_s: float
    refit_s: float

    @property
    def note(self) -> str | None:
        """What the user should know of the refit; None if all went well."""
        if not (self.refit_damped or self.refit_failed or self.refit_rejected):
            return None
        return (
            f"layer '{self.layer}': refit needed more damping in {self.refit_damped} rows, failed "
            f"in {self.refit_failed}, was undone on held-out data in {self.refit_rejected}"
        )

    def reported(self) -> dict[str, float | None]:
        """Under the names of `LayerReport`."""
        return {
            "error_initial": self.initial,
            "error_masked": self.masked,
            "error_refit": self.refitted,
            "holdout_initial": self.holdout_initial,
            "holdout_masked": self.holdout_masked,
            "holdout_refit": self.holdout_refitted,
            "damping": self.damping,
        }


@dataclass(slots=True)
class ReconstructionResult:
    """Masks (and re-fitted values) by parameter name, in the parameter's shape.

    Attributes
    ----------
    masks : name -> bool tensor
    values : name -> weights in the parameter's dtype, zero where pruned; None for mask only
    records : one for every block of rows and round
    layers : one report for every layer, in the order in which the layers run; errors are those
        before the tuning of the layer's block
    windows : one report for every block that was tuned
    """

    masks: dict[str, Tensor]
    values: dict[str, Tensor] | None
    records: list[RowBlockRecord] = field(default_factory=list)
    layers: list[LayerErrors] = field(default_factory=list)
    windows: list[WindowReport] = field(default_factory=list)
