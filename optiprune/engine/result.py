"""What a run returns besides the masks: one report, with a row per layer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .allocation_report import AllocationReport
from .tuning import TuningReport
from .window_tuning import WindowReport

__all__ = ["LayerReport", "RunReport"]


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One layer after the run.

    Attributes
    ----------
    name, parameter : module and parameter names
    shape : of the parameter
    kept, total : weights
    error_initial, error_masked, error_refit : squared output error a position against the dense
        layer, summed over rows, on the samples of the quadratics: with the first mask, after the
        search, and after the refit; None where not measured
    holdout_initial, holdout_masked, holdout_refit : the same on held-out samples (reconstruction)
    damping : of the layer's refit, in units of the Gram matrix' mean diagonal; None without one
    """

    name: str
    parameter: str
    shape: tuple[int, ...]
    kept: int
    total: int
    error_initial: float | None = None
    error_masked: float | None = None
    error_refit: float | None = None
    holdout_initial: float | None = None
    holdout_masked: float | None = None
    holdout_refit: float | None = None
    damping: float | None = None

    @property
    def density(self) -> float:
        return self.kept / self.total


@dataclass(frozen=True, slots=True)
class RunReport:
    """Summary of a run.

    Attributes
    ----------
    objective : "global" or "reconstruction"
    solver : name of the solver
    density : reached, over the weights that take part
    layers : one row per layer
    loss_dense, loss_initial, loss_masked, loss_final : held-out loss of the dense model, with the
        first mask, after the search, and in the end: after the refit, and after the second search
        and refit if these stayed (global objective; else None)
    steps, accepted : batches solved, and how many stayed
    samples, holdout_samples : calibration samples for the quadratics, and for judging steps
    seconds : wall-clock time
    seed : the seed
    allocation : how the densities of the layers were chosen; None with a pattern, which fixes them,
        and with one sparsity over the whole model
    tuning : what the passes over the whole model did; None without them
    windows : what the tuning of each block did (reconstruction with ``window.epochs``)
    notes : what the user should know (raised damping, a refit that was undone, an early stop,
        options that had no effect)
    """

    objective: str
    solver: str
    density: float
    layers: tuple[LayerReport, ...]
    loss_dense: float | None
    loss_initial: float | None
    loss_masked: float | None
    loss_final: float | None
    steps: int
    accepted: int
    samples: int
    holdout_samples: int
    seconds: float
    seed: int
    notes: tuple[str, ...] = ()
    allocation: AllocationReport | None = None
    tuning: TuningReport | None = None
    windows: tuple[WindowReport, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)
