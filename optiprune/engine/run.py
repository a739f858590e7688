"""One run from a dense model to masks: validate everything, first mask, search, refit.

The model is only read here; the caller writes the result.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from optiprune.config import Config, ConfigError
from optiprune.curvature import CalibrationSet, PrunableLayer, find_layers, linearise_loss
from optiprune.curvature.capture import forward_order
from optiprune.curvature.gram import input_norms, wanda_scores
from optiprune.curvature.losses import LossFunction, has_true_fisher, resolve_loss
from optiprune.problems import CardinalityQP
from optiprune.solvers import Solver, Stop, UnsupportedProblemError

from .budgets import Budgets, make_budgets
from .errors import StepFailedError
from .global_loss import GlobalSearch
from .initial import best_per_group, nonzero_mask, require_connected
from .objective import GlobalLoss
from .reconstruction import reconstruct
from .reconstruction_result import ReconstructionResult, RowBlockRecord
from .records import StepRecord
from .refitting import refit_state
from .result import LayerReport, RunReport
from .state import WeightState

__all__ = ["EngineResult", "PruningRun"]

log = logging.getLogger("optiprune")


@dataclass(frozen=True, slots=True)
class EngineResult:
    """Masks and, if re-fitted, values by parameter name; the report; every step."""

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
    """

    model: nn.Module
    train: CalibrationSet
    holdout: CalibrationSet | None
    loss: str | LossFunction
    config: Config
    solver: Solver
    stop: Stop | None
    callback: Callable[[StepRecord], None] | None = None
    history: list[StepRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    layers: list[PrunableLayer] = field(init=False)
    state: WeightState = field(init=False)
    budgets: Budgets = field(init=False)
    _objective: GlobalLoss | None = field(init=False, default=None)
    _losses: dict[str, float] = field(init=False, default_factory=dict)
    _errors: dict[str, dict[str, float]] = field(init=False, default_factory=dict)
    _began: float = field(init=False, default=0.0)

    def prepare(self) -> None:
        """Find layers and budgets, resolve the loss, try the solver's support.

        Raises
        ------
        LayerError, BudgetError, CalibrationError, UnsupportedProblemError
        """
        self._began = time.perf_counter()
        options = self.config.layers
        self.layers = find_layers(
            self.model, include=options.include, exclude=options.exclude, types=options.types
        )
        self.state = WeightState(self.model, self.layers)
        self.budgets = make_budgets(self.state, self.config)
        if CardinalityQP not in self.solver.capabilities.problems:
            raise UnsupportedProblemError(
                f"solver '{self.solver.name}' does not take CardinalityQP, which the engine makes; "
                "wrap it so that it takes a QUBO by optiprune.problems.to_penalty_qubo"
            )
        if self.config.prune.objective == "global" or self.config.initial.method == "gradient":
            first = next(iter(self.train.batches(1)))
            self._objective = GlobalLoss(
                self.model,
                self.layers,
                resolve_loss(self.loss, first.targets),
                self.config.curvature,
                self.state.dense_weights() if self.loss == "kl" else None,
            )
            if self._objective.true_fisher and not has_true_fisher(self._objective.loss):
                raise ConfigError(
                    "curvature.fisher = 'true' needs loss = cross_entropy, kl or mse, since labels "
                    "must be sampled; use fisher = 'empirical' (or 'auto') with this loss"
                )

    def run(self) -> EngineResult:
        """First mask, search, refit. Raises `StepFailedError` with the result so far."""
        first, search = np.random.SeedSequence(self.config.seed).spawn(2)
        score = self._score(first)
        if self.config.initial.method == "nonzero":
            self.state.mask = nonzero_mask(self.state, self.budgets)
            start = self.state.mask.copy()
        else:
            start = best_per_group(score, self.budgets.groups, self.budgets.kept)
        require_connected(self.state, start, self.config.layers.min_kept)
        log.info(
            "%d weights in %d layers, density %.4f",
            self.state.n,
            len(self.layers),
            self.budgets.density,
        )
        try:
            if self.config.prune.objective == "global":
                self._run_global(score, start, search)
                values = self._values() if self.config.prune.refit else None
            else:
                values = self._run_reconstruction(start, search)
        except StepFailedError as e:
            if isinstance(e.partial, ReconstructionResult):
                self._take_reconstruction(e.partial)
            self.notes.append(str(e))
            raise StepFailedError(str(e), self._result(None)) from e.__cause__
        return self._result(values)

    def _score(self, seed: np.random.SeedSequence) -> npt.NDArray[np.floating]:
        """Score of every weight for the first mask, shape (P,); higher stays."""
        state, method = self.state, self.config.initial.method
        if method == "auto":
            layerwise = self.config.prune.objective == "reconstruction"
            method = "wanda" if layerwise and not self.config.prune.refit else "magnitude"
        if method == "random":
            return np.random.default_rng(seed).random(state.n)
        if method == "wanda":
            norms = input_norms(
                self.model, self.layers, self.train, chunk=self.config.curvature.chunk
            )
            dense = state.dense_weights()
            parts = [
                wanda_scores(layer, dense[layer.parameter], norms[layer.name]).reshape(-1).cpu()
                for layer in self.layers
            ]
            return np.asarray(torch.cat(parts).numpy())
        if method == "gradient":
            assert self._objective is not None
            gradients = linearise_loss(
                self.model,
                self.layers,
                state.dense_weights(),
                self.train,
                self._objective.loss,
                dense_targets=self._objective.dense,
                chunk=self.config.curvature.chunk,
            )
            flat = torch.cat([gradients.mean[layer.name].reshape(-1) for layer in self.layers])
            return np.abs(flat.cpu().numpy() * state.dense)
        return np.abs(state.dense)

    def _run_global(
        self,
        score: npt.NDArray[np.floating],
        start: npt.NDArray[np.bool_],
        seed: np.random.SeedSequence,
    ) -> None:
        objective, state = self._objective, self.state
        assert objective is not None

        def loss(mask: npt.NDArray[np.bool_]) -> float | None:
            return (
                None if self.holdout is None else objective.value(state.weights(mask), self.holdout)
            )

        self._note_loss("dense", loss(np.ones(state.n, dtype=bool)))
        self._note_loss("initial", loss(start))
        GlobalSearch(
            objective,
            state,
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
        ).run()
        self._note_loss("masked", loss(state.mask))
        if self.config.prune.refit:
            order = forward_order(self.model, self.layers, self.state.dense_weights(), self.train)
            held = None if self.holdout is None else lambda: float(loss(state.mask) or 0.0)
            for fit in refit_state(self.model, state, order, self.train, self.config, held):
                self._errors[fit.layer] = {"masked": fit.error_before}
                if fit.accepted:
                    self._errors[fit.layer]["refit"] = fit.error_after
                else:
                    self.notes.append(
                        f"layer '{fit.layer}': the refit raised the held-out loss and was undone"
                    )
                if fit.damping > self.config.refit.damping:
                    self.notes.append(
                        f"layer '{fit.layer}': damping was raised to {fit.damping:g} of the mean "
                        "diagonal for some rows"
                    )
        self._note_loss("final", loss(state.mask))

    def _run_reconstruction(
        self, start: npt.NDArray[np.bool_], seed: np.random.SeedSequence
    ) -> dict[str, Tensor] | None:
        state = self.state
        state.mask = start
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
        )
        self._take_reconstruction(result)
        return result.values

    def _on_block(self, block: RowBlockRecord) -> None:
        """A block of rows was decided: one step of the history."""
        record = StepRecord(
            step=len(self.history),
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
            density=self.budgets.density,
            solver=block.solver,
            status="feasible",
            gap=None,
            solve_s=block.solve_s,
            wall_s=block.solve_s,
        )
        self.history.append(record)
        if self.callback is not None:
            self.callback(record)

    def _take_reconstruction(self, result: ReconstructionResult) -> None:
        self.state.set_masks(result.masks)
        for row in result.layers:
            self._errors[row.layer] = {
                "initial": row.initial,
                "masked": row.masked,
                **({} if row.refitted is None else {"refit": row.refitted}),
            }
            if row.refit_damped or row.refit_failed or row.refit_rejected:
                self.notes.append(
                    f"layer '{row.layer}': refit needed more damping in {row.refit_damped} rows, "
                    f"failed in {row.refit_failed}, was undone on held-out data in "
                    f"{row.refit_rejected}"
                )

    def _values(self) -> dict[str, Tensor]:
        """Values of the kept weights, by parameter name."""
        return self.state.weights()

    def _note_loss(self, when: str, value: float | None) -> None:
        if value is not None:
            self._losses[when] = value
            log.info("held-out loss, %s: %.6g", when, value)

    def _result(self, values: dict[str, Tensor] | None) -> EngineResult:
        state = self.state
        rows = []
        for i, layer in enumerate(self.layers):
            e = self._errors.get(layer.name, {})
            rows.append(
                LayerReport(
                    name=layer.name,
                    parameter=layer.parameter,
                    shape=layer.shape,
                    kept=int(np.count_nonzero(state.mask[state.span(i)])),
                    total=layer.numel,
                    error_initial=e.get("initial"),
                    error_masked=e.get("masked"),
                    error_refit=e.get("refit"),
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
        )
        return EngineResult(state.masks(), values, report, list(self.history))
