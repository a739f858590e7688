"""`optimize_masks`: a trained model and calibration data in, the best masks that were found out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from optiprune.arguments import kept_steps, make_solver, settings_of, split_samples
from optiprune.config import Config
from optiprune.curvature.inputs import device_of
from optiprune.curvature.losses import LossFunction
from optiprune.engine.described import described
from optiprune.engine.errors import RunInterruptedError, StepFailedError
from optiprune.engine.identity import check_identity, identity_of, options_of
from optiprune.engine.records import StepRecord
from optiprune.engine.result import RunReport
from optiprune.engine.run import EngineResult, PruningRun
from optiprune.engine.steps import StepStore
from optiprune.engine.threads import fixed_threads
from optiprune.masks import AppliedMasks, MaskSet, weight_hashes
from optiprune.planning import RunPlan, check_memory, make_plan
from optiprune.progress import StepProgress
from optiprune.solvers import Solver

__all__ = ["MaskResult", "optimize_masks", "plan_masks"]


@dataclass(frozen=True, slots=True)
class MaskResult:
    """What `optimize_masks` returns.

    Attributes
    ----------
    masks : the masks, with the re-fitted weights in ``masks.fitted`` if there are any
    report : `RunReport`, with a row per layer
    history : a `StepRecord` per batch: predicted and actual change of the objective
    config : the config that was run
    applied : handle that takes the masks back (`revert`); None in the partial result of a failure
    """

    masks: MaskSet
    report: RunReport
    history: tuple[StepRecord, ...]
    config: Config
    applied: AppliedMasks | None = field(default=None, repr=False)

    @property
    def density(self) -> float:
        """Density reached over the weights that take part."""
        return self.report.density

    def revert(self) -> None:
        """Give the model its dense weights back, bit for bit."""
        if self.applied is None:
            raise RuntimeError("these masks were never applied; there is nothing to revert")
        self.applied.revert()


def optimize_masks(
    model: nn.Module,
    data: Iterable[Any],
    *,
    sparsity: float | None = None,
    objective: str | None = None,
    refit: bool | None = None,
    pattern: str | None = None,
    solver: str | Mapping[str, Any] | Solver | None = None,
    loss: str | LossFunction | None = None,
    holdout: Iterable[Any] | None = None,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    preset: str | None = None,
    config: Config | Mapping[str, Any] | None = None,
    seed: int | None = None,
    callback: Callable[[StepRecord], None] | None = None,
    progress: bool | None = None,
    steps: str | Path | StepStore | None = None,
) -> MaskResult:
    """Decide which weights of a trained model to keep, and mask the model in place.

    The model is written once, at the end, when everything is validated: on any error it is exactly
    as it was. Arguments given here win over ``config``, which wins over the defaults.

    Parameters
    ----------
    model : trained torch model on one device; Linear and Conv2d weights take part
    data : iterable of input batches (tensor, tuple, or dict passed by keyword) or of pairs
        (inputs, targets); the first dimension counts samples. All of it is held in memory.
    sparsity : in [0, 1), share of the weights that take part to prune
    objective : "reconstruction" (each layer's output, no labels), "global" (the model's loss) or
        "auto"
    refit : re-fit the kept weights by least squares
    pattern : "unstructured", "row-balanced", "N:M" or "block:RxC"
    solver : name, table ``{"name": ..., option: value}``, or an instance
    loss : name, or callable(outputs, targets) -> scalar mean over the samples of a batch
    holdout : data like ``data`` that judges the steps; by default a share of ``data`` is held out
    include, exclude : fnmatch patterns of layer names
    preset : "fast", "balanced" (the default) or "best": options that hold where neither arguments
        nor ``config`` say otherwise
    config : `Config`, or a nested mapping of the same form
    seed : the one seed >= 0
    callback : called with the `StepRecord` of every batch
    progress : show a progress line; by default only on a terminal
    steps : a folder (or a `StepStore`) where every step is kept: a layer, a batch, a pass of the
        tuning. A run that was killed goes on from there, with the same masks, when it is called
        again with the same arguments. The callback sees the steps that are there, too.

    Returns
    -------
    MaskResult

    Raises
    ------
    ConfigError
        An option that does not exist or has a bad value (a sparsity outside [0, 1), for one).
    LayerError
        No layer to prune, or weights that are NaN or infinite.
    CalibrationError
        No data, data on another device, NaN in data, activations, loss or gradients, no labels; the
        model or the loss raised on a batch.
    BudgetError
        A density that rounds to nothing in a layer, or a pattern that does not fit.
    SolverError
        An unknown solver or option, or one that cannot take the problems or their size.
    TooLargeError
        It would not fit in memory, by an estimate; `plan_masks` shows it.
    ExecutorError, WorkerMismatchError
        The processes or the cluster of ``executor`` cannot be had, or would decide otherwise.
    StepFailedError
        A solver failed in the middle, or workers were lost too often; ``partial`` holds the
        `MaskResult` up to then, not applied.
    RunMismatchError, JournalError, LockedError
        The steps that are there are of another run, or damaged; another process writes there.
    RunInterruptedError
        Ctrl-C (it is a KeyboardInterrupt); ``partial`` as above, None before the first step.
    """
    settings = settings_of(
        config, sparsity, objective, refit, pattern, solver, loss, include, exclude, preset, seed
    )
    run = _run_of(model, data, holdout, loss, solver, settings)
    with (
        StepProgress(progress) as line,
        fixed_threads(settings.threads),
        kept_steps(steps) as store,
    ):
        run.callback, run.steps = line.both(callback), store
        run.prepare()
        check_memory(run)
        if steps is not None:
            _check_steps(run, settings)
        try:
            outcome = run.run()
        except (StepFailedError, RunInterruptedError) as e:
            if e.partial is not None:
                e.partial = _result(model, e.partial, settings)
            raise
    result = _result(model, outcome, settings)
    applied = result.masks.apply(model)
    return MaskResult(result.masks, result.report, result.history, settings, applied)


def plan_masks(
    model: nn.Module,
    data: Iterable[Any],
    *,
    sparsity: float | None = None,
    objective: str | None = None,
    refit: bool | None = None,
    pattern: str | None = None,
    solver: str | Mapping[str, Any] | Solver | None = None,
    loss: str | LossFunction | None = None,
    holdout: Iterable[Any] | None = None,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    preset: str | None = None,
    config: Config | Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> RunPlan:
    """What `optimize_masks` with these arguments would do and need; the model is not changed.

    One forward pass and one layer, or two steps of the global search, are tried to tell the time.

    Parameters
    ----------
    As for `optimize_masks`.

    Returns
    -------
    RunPlan : of which `RunPlan.require_memory` raises `TooLargeError` where the run does not fit

    Raises
    ------
    As `optimize_masks` does before it begins.
    """
    settings = settings_of(
        config, sparsity, objective, refit, pattern, solver, loss, include, exclude, preset, seed
    )
    run = _run_of(model, data, holdout, loss, solver, settings)
    with fixed_threads(settings.threads):
        run.prepare()
        return make_plan(run)


def _run_of(
    model: nn.Module,
    data: Iterable[Any],
    holdout: Iterable[Any] | None,
    loss: str | LossFunction | None,
    solver: str | Mapping[str, Any] | Solver | None,
    config: Config,
) -> PruningRun:
    """A run that is not prepared yet."""
    chosen, stop = make_solver(solver, config)
    train, held = split_samples(device_of(model), data, holdout, config)
    return PruningRun(
        model=model,
        train=train,
        holdout=held,
        loss=loss if loss is not None else config.prune.loss,
        config=config,
        solver=chosen,
        stop=stop,
    )


def _check_steps(run: PruningRun, config: Config) -> None:
    """Raise `RunMismatchError` if the steps that are there do not belong to this run."""
    options = options_of(config, run.solver, device_of(run.model))
    options["loss"] = run.loss if isinstance(run.loss, str) else described(run.loss)
    data = {"calibration": run.train, "held-out": run.holdout}
    check_identity(run.steps, identity_of(run.model, data, options))


def _result(model: nn.Module, outcome: EngineResult, config: Config) -> MaskResult:
    masks = MaskSet(outcome.masks).with_hashes(weight_hashes(model, outcome.masks))
    if outcome.values is not None:
        masks = masks.with_fitted(outcome.values)
    return MaskResult(masks, outcome.report, tuple(outcome.history), config)
