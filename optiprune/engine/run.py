"""One run from a dense model to masks: validate everything, first mask, search, refit.

The model is only read here; the caller writes the result.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from optiprune.allocation import multiply_adds_per_weight
from optiprune.config import Config, ConfigError, ignored_options, resolved
from optiprune.curvature import (
    CalibrationError,
    CalibrationSet,
    PrunableLayer,
    find_layers,
    require_matches,
)
from optiprune.curvature.capture import forward_order
from optiprune.curvature.inputs import device_of
from optiprune.curvature.layers import sparsity_by_pattern
from optiprune.curvature.losses import LossFunction, has_true_fisher, resolve_loss
from optiprune.problems import MIQP
from optiprune.solvers import Solver, Stop

from .allocating import Allocation, allocates, require_allocatable
from .allocation_report import AllocationReport
from .budgets import Budgets, block_of, make_budgets, pattern_of
from .crew import Crew, open_crew, repeated_note, require_crew
from .errors import RunInterruptedError, StepFailedError
from .first_mask import FirstMask
from .global_loss import GlobalSearch
from .global_run import GlobalRun
from .layer_decision import decides_layers
from .objective import GlobalLoss
from .reconstruction import reconstruct
from .reconstruction_result import ReconstructionResult, RowBlockRecord
from .records import StepRecord
from .result import LayerReport, RunReport
from .sample_plan import planned_samples
from .solver_needs import require_solver
from .state import WeightState
from .steps import NoSteps, StepStore
from .trial import require_gradients, try_model
from .tuning import Tuner, TuningReport
from .tuning_plan import planned
from .window_tuning import WindowReport

__all__ = ["EngineResult", "PruningRun"]

log = logging.getLogger("optiprune")


@dataclass(frozen=True, slots=True)
class EngineResult:
    """Masks and, of layers that were re-fitted, values by parameter name; report; every step."""

    masks: dict[str, Tensor]
    values: dict[str, Tensor] | None
    report: RunReport
    history: list[StepRecord]


@dataclass(slots=True)
class PruningRun:
    """A validated run. `prepare` raises on every bad input before any work starts.

    Attributes
    ----------
    loss : name or callable; used by the global objective and the 'gradient' first mask alone
    steps : where what was done is kept, and taken from by a run that goes on
    """

    model: nn.Module
    train: CalibrationSet
    holdout: CalibrationSet | None
    loss: str | LossFunction
    config: Config
    solver: Solver
    stop: Stop | None
    callback: Callable[[StepRecord], None] | None = None
    steps: StepStore = field(default_factory=NoSteps)
    history: list[StepRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    layers: list[PrunableLayer] = field(init=False)
    state: WeightState = field(init=False)
    budgets: Budgets = field(init=False)
    objective: GlobalLoss | None = field(init=False, default=None)
    _positions: dict[str, float] | None = field(init=False, default=None)
    _allocation: Allocation | None = field(init=False, default=None)
    _allocated: AllocationReport | None = field(init=False, default=None)
    _losses: dict[str, float] = field(init=False, default_factory=dict)
    _errors: dict[str, dict[str, float | None]] = field(init=False, default_factory=dict)
    tuner: Tuner | None = field(init=False, default=None)
    _tuning: TuningReport | None = field(init=False, default=None)
    _windows: list[WindowReport] = field(init=False, default_factory=list)
    _began: float = field(init=False, default=0.0)

    def prepare(self) -> None:
        """Find layers and budgets, resolve the loss, try the model on the data and the solver.

        Raises
        ------
        LayerError, BudgetError, CalibrationError, ConfigError, UnsupportedProblemError
        """
        self._began = time.perf_counter()
        require_gradients(self.model)
        options = self.config.layers
        self.layers = find_layers(
            self.model, include=options.include, exclude=options.exclude, types=options.types
        )
        require_matches(
            "layers.sparsity",
            options.sparsity,
            [name for layer in self.layers for name in layer.module_names],
        )
        self._resolve()
        self.state = WeightState(self.model, self.layers)
        if allocates(self.config):
            require_allocatable(self.config)  # budgets follow once it is known what layers need
        else:
            self.budgets = make_budgets(self.state, self.config)
        require_solver(self.solver, self.config, self.layers)
        if self.config.prune.objective == "reconstruction":
            require_crew(self.config, self.solver, self.stop, device_of(self.model))
        ignored = ignored_options(self.config)
        if ignored:
            self.notes.append(
                f"no effect with objective = '{self.config.prune.objective}': {', '.join(ignored)}"
            )
        if self.config.prune.objective == "global" or self.config.initial.method == "gradient":
            first = next(iter(self.train.batches(1)))
            self.objective = GlobalLoss(
                self.model,
                self.layers,
                resolve_loss(self.loss, first.targets),
                self.config.curvature,
                self.state.dense_weights() if self.loss == "kl" else None,
            )
            if self.objective.true_fisher and not has_true_fisher(self.objective.loss):
                raise ConfigError(
                    "curvature.fisher = 'true' needs loss = cross_entropy, kl or mse, since labels "
                    "must be sampled; use fisher = 'empirical' (or 'auto') with this loss"
                )
        self._try_data()
        if self.objective is not None:
            most = self.config.curvature
            planned = planned_samples(most, self.train.n, self._multiply_adds())
            self.objective = replace(self.objective, options=planned)
        if allocates(self.config):
            self._allocation = Allocation(
                self.model,
                self.state,
                self.train,
                self.holdout,
                self.config,
                self.loss,
                self.notes,
            )
            self._allocation.prepare()
        if self._tunes():
            self.tuner = self._make_tuner()
            self.tuner.loss()  # raises where the data have no targets for it
        elif self.config.tune.epochs not in (0, "auto"):
            self.notes.append("no effect with refit = false, which moves no weight: tune.epochs")

    def _resolve(self) -> None:
        """Settle what 'auto' leaves to the model and the data."""
        own = self.config.layers.sparsity
        sharing = sum(sparsity_by_pattern(layer, own) is None for layer in self.layers)
        chosen = self.config.prune.objective == "auto"
        weights = sum(layer.numel for layer in self.layers)
        own_loss = callable(self.loss) or self.loss == "output"
        self.config = resolved(self.config, weights, sharing, own_loss)
        unlabelled = self.loss == "auto" and not self.train.has_targets
        if chosen and unlabelled and self.config.prune.objective == "global":
            self.loss = "kl"

    def _tunes(self) -> bool:
        return bool(self.config.tune.epochs and self.config.prune.refit)

    def _make_tuner(self) -> Tuner:
        task, dense = None, self.state.dense_weights()
        once = 0.0
        if self.config.tune.epochs == "auto":
            once = self.train.n * self._multiply_adds()
        options = planned(self.config.tune, len(self.layers), self.train.n, once)
        if options.loss == "task":
            first = next(iter(self.train.batches(1)))
            task = resolve_loss(self.loss, first.targets)
        return Tuner(
            self.model,
            self.layers,
            dense,
            self.train,
            self.holdout,
            options,
            task,
            self.config.curvature.chunk,
        )

    def positions(self) -> dict[str, float]:
        """Multiply-adds of a weight of each layer for one sample; counted once."""
        if self._positions is None:
            dense = self.state.dense_weights()
            self._positions = multiply_adds_per_weight(self.model, self.layers, dense, self.train)
        return self._positions

    def _multiply_adds(self) -> float:
        """Of the layers, for one sample."""
        return sum(self.positions()[layer.name] * layer.numel for layer in self.layers)

    def _try_data(self) -> None:
        """Find out now what the model, the loss and the refit would complain of later."""
        sets = [self.train] if self.holdout is None else [self.train, self.holdout]
        if self.objective is not None and self.objective.dense is None:
            without = [not data.has_targets for data in sets]
            if len(set(without)) > 1:
                raise CalibrationError(
                    f"the {'calibration' if without[0] else 'held-out'} data have no targets where "
                    f"the {'held-out' if without[0] else 'calibration'} data do; give both or none"
                )
        weights, chunk = self.state.dense_weights(), self.config.curvature.chunk
        whole = allocates(self.config) or self._tunes()
        try_model(self.model, weights, self.layers, self.objective, sets, chunk, whole)
        if decides_layers(self.config):
            forward_order(self.model, self.layers, weights, self.train)  # all of them run

    def run(self) -> EngineResult:
        """First mask, search, refit, tuning.

        Raises
        ------
        ExecutorError, WorkerMismatchError
            Workers that were asked for cannot be had; nothing was done yet.
        StepFailedError, RunInterruptedError
            With the result so far.
        """
        if self.config.prune.objective == "global":
            return self._run(None)
        device = device_of(self.model)
        with open_crew(self.config, self.solver, self.stop, device) as crew:
            return self._run(crew)

    def _run(self, crew: Crew | None) -> EngineResult:
        first, search, tuning = np.random.SeedSequence(self.config.seed).spawn(3)
        budgets = None if allocates(self.config) else self.budgets
        try:
            found = FirstMask(
                self.model,
                self.state,
                self.train,
                self.config,
                self.objective,
                budgets,
                self._allocation,
                self.steps,
            ).find(first)
        except KeyboardInterrupt as e:
            raise RunInterruptedError("interrupted before the first step") from e
        self.budgets, self._allocated = found.budgets, found.report
        score, start = found.score, found.mask
        del found
        if self.config.initial.method == "nonzero":  # zeros stay out at every stage of a schedule
            self.state.mask = start.copy()
        log.info(
            "%d weights in %d layers, density %.4f",
            self.state.n,
            len(self.layers),
            self.budgets.density,
        )
        try:
            if self.config.prune.objective == "global":
                self._run_global(score, start, search)
                values = self.state.fitted_weights() or None
            else:
                del score  # as large as the model
                values = self._run_reconstruction(start, search, crew)
            return self._result(self._tuned(values, tuning))
        except StepFailedError as e:
            raise StepFailedError(str(e), self._partial(str(e), e.partial)) from e.__cause__
        except KeyboardInterrupt as e:
            message = f"interrupted after {len(self.history)} steps"
            partial = None
            if self.history:
                partial = self._partial(message, getattr(e, "partial", None))
            raise RunInterruptedError(message, partial) from e

    def _tuned(
        self, values: dict[str, Tensor] | None, seed: np.random.SeedSequence
    ) -> dict[str, Tensor] | None:
        """The values after the tuning, if there is one and it lowered the loss."""
        if self.tuner is None:
            return values
        self.state.set_values(values or {})
        weights = {**self.state.weights(), **(values or {})}
        tuned, self._tuning = self.tuner.run(weights, self.state.masks(), seed, self.steps)
        if self._tuning.kept:
            return tuned
        self.notes.append("the tuning was undone: no pass over the data lowered the held-out loss")
        return values

    def _partial(self, message: str, reached: ReconstructionResult | None) -> EngineResult:
        """The result of a run that ends here: masks so far, and the values re-fitted so far."""
        self.notes.append(message)
        if reached is None:
            return self._result(self.state.fitted_weights() or None)
        self._take_reconstruction(reached)
        return self._result(reached.values or None)

    def _run_global(
        self,
        score: npt.NDArray[np.floating],
        start: npt.NDArray[np.bool_],
        seed: np.random.SeedSequence,
    ) -> None:
        assert self.objective is not None
        search = GlobalSearch(
            self.objective,
            self.state,
            self.budgets,
            self.train,
            self.holdout,
            score,
            self.config,
            self.solver,
            self.stop,
            seed,
            self.callback,
            self.history,
            self.notes,
            self.steps,
        )
        run = GlobalRun(self.model, search, self.notes, self._losses, self._errors)
        try:
            run.run(start)
        finally:
            self._errors = run.errors

    def _run_reconstruction(
        self, start: npt.NDArray[np.bool_], seed: np.random.SeedSequence, crew: Crew | None
    ) -> dict[str, Tensor] | None:
        state = self.state
        state.mask = start
        config = self.config
        # the groups of a pattern are enumerated, without the solver
        subsets = MIQP in self.solver.capabilities.problems
        subsets = subsets or all(
            pattern_of(layer, config) or block_of(layer, config) for layer in self.layers
        )
        if config.prune.refit and config.joint.enabled and not subsets:
            self.notes.append(
                f"solver '{self.solver.name}' takes no best-subset problems (MIQP): masks were "
                "chosen for the values before the refit; 'auto' or 'tabu' choose them for those "
                "after it, joint.enabled = false says that this is meant"
            )
        result = reconstruct(
            self.model,
            self.layers,
            state.masks(),
            self.train,
            self.holdout,
            self.config,
            self.solver,
            seed,
            self._on_block,
            stop=self.stop,
            steps=self.steps,
            crew=crew,
        )
        self._take_reconstruction(result)
        if crew is not None and crew.repeated:
            self.notes.append(repeated_note(crew))
        return result.values

    def _on_block(self, block: RowBlockRecord) -> None:
        """A block of rows was decided: one step of the history."""
        record = StepRecord.of_block(block, len(self.history), self.budgets.density)
        self.history.append(record)
        if self.callback is not None:
            self.callback(record)

    def _take_reconstruction(self, result: ReconstructionResult) -> None:
        self.state.set_masks(result.masks)
        self._windows = result.windows
        for row in result.layers:
            self._errors[row.layer] = row.reported()
            if row.note is not None:
                self.notes.append(row.note)

    def _result(self, values: dict[str, Tensor] | None) -> EngineResult:
        state = self.state
        rows = []
        for i, layer in enumerate(self.layers):
            rows.append(
                LayerReport(
                    name=layer.name,
                    parameter=layer.parameter,
                    shape=layer.shape,
                    kept=int(np.count_nonzero(state.mask[state.span(i)])),
                    total=layer.numel,
                    **self._errors.get(layer.name, {}),
                )
            )
        report = RunReport(
            objective=self.config.prune.objective,
            solver=self.solver.name,
            density=state.density,
            layers=tuple(rows),
            loss_dense=self._losses.get("dense"),
            loss_initial=self._losses.get("initial"),
            loss_masked=self._losses.get("masked"),
            loss_final=self._losses.get("final"),
            steps=len(self.history),
            accepted=sum(r.accepted for r in self.history),
            samples=self.train.n,
            holdout_samples=0 if self.holdout is None else self.holdout.n,
            seconds=time.perf_counter() - self._began,
            seed=self.config.seed,
            notes=tuple(self.notes),
            allocation=self._allocated,
            tuning=self._tuning,
            windows=tuple(self._windows),
        )
        return EngineResult(state.masks(), values, report, list(self.history))
