"""Block coordinate descent on the global loss: linearise, choose a batch, solve, check, keep.

The idea of deciding small blocks of kept and pruned weights by a binary quadratic follows iCBS
(arXiv 2411.17796). Here the cardinality is kept by the solver, the step stays inside a trust region
(the ridge), and a step stays only if data that the batch did not see agree.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from optiprune.batches import marginal_costs, select_batch
from optiprune.config import Config
from optiprune.curvature import CalibrationSet, LocalQuadratic, SampleGradients
from optiprune.masks.file import pack, unpack
from optiprune.problems import MIQP, CardinalityQP
from optiprune.solvers import Solution, Solver, Stop, UnsupportedProblemError

from .budgets import Budgets
from .errors import StepFailedError
from .initial import best_per_group
from .objective import GlobalLoss
from .records import StepRecord
from .schedule import pruned_shares
from .solving import solve_checked, trajectory_of
from .state import WeightState
from .steps import NoSteps, StepStore

__all__ = ["GlobalSearch"]

Callback = Callable[[StepRecord], None]
RIDGE_RANGE = 64.0


@dataclass(slots=True)
class GlobalSearch:
    """One run of the search; `run` and `go_on` move ``state.mask`` and fill ``history``.

    Attributes
    ----------
    objective, state, budgets : what to lower, from where, within what
    train, holdout : disjoint calibration sets; without a holdout every step is accepted
    score : (P,) higher stays; of the first mask, and of what each stage of the schedule prunes
    notes : why a stage ended early
    steps : every batch is kept there when it is decided, and taken from there if it was
    stages : how many are over
    """

    objective: GlobalLoss
    state: WeightState
    budgets: Budgets
    train: CalibrationSet
    holdout: CalibrationSet | None
    score: npt.NDArray[np.floating]
    config: Config
    solver: Solver
    stop: Stop | None
    seed: np.random.SeedSequence
    callback: Callback | None = None
    history: list[StepRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    steps: StepStore = field(default_factory=NoSteps)
    _ridge: float = 0.0
    _loss: float = float("nan")
    _start: float = 0.0
    stages: int = 0

    def run(self, after: Callable[[int], None] | None = None) -> None:
        """Prune stage by stage and search at each density.

        ``after`` is called with the number of each stage that is over; it may move ``state`` and
        ``score``.

        Raises
        ------
        StepFailedError
            The solver raised, or returned something invalid. ``state`` is as before the step.
        UnsupportedProblemError
            The solver does not take the problem.
        KeyboardInterrupt
            Also when the solver caught it; ``state`` is as before the step.
        """
        shares = pruned_shares(self.config.schedule, self.budgets.density)
        steps = self.config.batches.steps
        self._ridge = self.config.curvature.ridge
        self._start = time.perf_counter()
        for stage, share in enumerate(shares):
            self._prune_to(self.budgets.at_share(share))
            self.go_on(steps * (stage + 1) // len(shares) - steps * stage // len(shares))
            if after is not None:
                after(stage)

    def go_on(self, steps: int) -> None:
        """One more stage, from where ``state`` is now, at the density that it has.

        The seeds of the stages before it are not touched. Raises as `run`.
        """
        self._loss = self.holdout_loss(self.state.mask)
        self._search(self.stages, steps)
        self.stages += 1

    def _prune_to(self, kept: npt.NDArray[np.int64]) -> None:
        """Drop the worst-scoring kept weights until every budget holds."""
        score = np.where(self.state.mask, self.score, -np.inf)
        self.state.mask = best_per_group(score, self.budgets.groups, kept)

    def holdout_loss(self, mask: npt.NDArray[np.bool_]) -> float:
        """Held-out loss with this mask; NaN without held-out data."""
        if self.holdout is None:
            return float("nan")
        return self.objective.value(self.state.weights(mask), self.holdout)

    def _search(self, stage: int, steps: int) -> None:
        heat = np.zeros(self.state.n, dtype=np.float32)
        rejected = 0
        for number, seed in enumerate(self.seed.spawn(steps)):
            seconds = self.config.batches.seconds
            key = f"search/{stage}/{number}"
            record = self._restored(key, heat)
            if record is None:
                over = seconds is not None and time.perf_counter() - self._start >= seconds
                if over or f"search/{stage}/end" in self.steps:
                    self._end_in_time(stage, number, steps)
                    break
                record = self._step(stage, number, seed, heat, key)
            if record is None:
                why = "no budget has both a kept and a pruned weight to exchange"
                self._note_end(stage, number, steps, why)
                break
            self.history.append(record)
            if self.callback is not None:
                self.callback(record)
            self.steps.check()
            rejected = 0 if record.accepted and record.changed else rejected + 1
            if rejected >= self.config.batches.patience and number + 1 < steps:
                why = f"the last {rejected} brought nothing (batches.patience)"
                self._note_end(stage, number + 1, steps, why)
                break

    def _end_in_time(self, stage: int, done: int, steps: int) -> None:
        """The clock ends a stage once: a run that goes on ends it at the same step."""
        key = f"search/{stage}/end"
        if key not in self.steps:
            self.steps.put(key, {}, {"done": done})
        self._note_end(stage, done, steps, "batches.seconds is over")

    def _note_end(self, stage: int, done: int, steps: int, why: str) -> None:
        self.notes.append(f"stage {stage} ended after {done} of {steps} steps: {why}")

    def _restored(self, key: str, heat: npt.NDArray[np.float32]) -> StepRecord | None:
        """A batch that was decided before, done again; None if it was not."""
        found = self.steps.get(key)
        if found is None:
            return None
        record = StepRecord.from_dict(found.record["step"])
        batch = found.arrays["batch"].numpy()
        _warm(heat, batch)
        if record.accepted:
            self.state.mask[batch] = unpack(found.arrays["kept"], (batch.size,)).numpy()
        self._ridge, self._loss = found.record["ridge"], found.record["loss"]
        self._start -= record.wall_s
        return record

    def _step(
        self,
        stage: int,
        number: int,
        seed: np.random.SeedSequence,
        heat: npt.NDArray[np.float32],
        key: str,
    ) -> StepRecord | None:
        """One batch; None when no batch can be formed (nothing to exchange)."""
        began = time.perf_counter()
        state = self.state
        linear_seed, batch_seed, solver_seed = seed.spawn(3)
        samples, mean = self.objective.linearise(state.weights(), self.train, linear_seed)
        batch = self._choose(number, samples, mean, np.random.default_rng(batch_seed), heat)
        if batch.size == 0:
            return None
        quadratic = self._quadratic(batch, samples, mean)
        problem = self._problem(quadratic, batch)
        x0 = state.mask[batch].astype(np.int8)
        solution, energy = self.solve(problem, x0, solver_seed)
        _warm(heat, batch)
        x = np.asarray(solution.x, dtype=bool)
        changed = int(np.count_nonzero(x != state.mask[batch]))
        proposal = state.mask.copy()
        proposal[batch] = x
        loss = self.holdout_loss(proposal) if changed else self._loss
        actual = None if self.holdout is None else loss - self._loss
        accepted = actual is None or actual <= self.config.accept.tolerance
        ridge = self._ridge
        self._adapt(energy, actual)
        if accepted:
            state.mask = proposal
            self._loss = loss
        names = tuple(state.layers[i].name for i in np.unique(state.layer_of(batch)))
        record = StepRecord(
            step=len(self.history),
            stage=stage,
            layers=names,
            size=int(batch.size),
            kept=int(x0.sum()),
            changed=changed,
            predicted=energy,
            actual=actual,
            accepted=accepted,
            objective=None if self.holdout is None else self._loss,
            ridge=ridge,
            density=state.density,
            solver=solution.stats.solver,
            status=solution.status.value,
            gap=solution.gap,
            solve_s=solution.stats.wall_s,
            wall_s=time.perf_counter() - began,
            trajectory=trajectory_of(solution, energy),
        )
        arrays = {"batch": torch.from_numpy(batch), "kept": pack(torch.from_numpy(x))}
        after = {"step": record.as_dict(), "ridge": self._ridge, "loss": self._loss}
        self.steps.put(key, arrays, after)
        return record

    def _choose(
        self,
        number: int,
        samples: SampleGradients,
        mean: dict[str, torch.Tensor],
        rng: np.random.Generator,
        heat: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.int64]:
        """Flat positions of the next batch; empty if no layer has anything to exchange."""
        n = len(self.state.layers)
        turns = [list(range(n))]
        if self.config.batches.across == "layer":
            turns = [[(number + i) % n] for i in range(n)]
        for layers in turns:
            batch = self._choose_among(layers, samples, mean, rng, heat)
            if batch.size:
                break
        return batch

    def _choose_among(
        self,
        chosen: list[int],
        samples: SampleGradients,
        mean: dict[str, torch.Tensor],
        rng: np.random.Generator,
        heat: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.int64]:
        """Flat positions of the next batch out of the layers of these numbers."""
        state, options = self.state, self.config.batches
        names = [state.layers[i].name for i in chosen]
        where = np.concatenate([np.arange(state.n)[state.span(i)] for i in chosen])
        gradient = torch.cat([mean[n].reshape(-1) for n in names]).cpu().numpy()
        diagonal = torch.cat([samples.diagonal(n).reshape(-1) for n in names]).cpu().numpy()
        kept = state.mask[where]
        cost = marginal_costs(
            gradient * self.config.curvature.gradient_scale,
            diagonal,
            state.values[where],
            kept,
            self._ridge,
        )

        def partners(
            few: npt.NDArray[np.int64], pool: npt.NDArray[np.int64]
        ) -> npt.NDArray[np.floating]:
            a = self.factor(where[few], samples) * state.values[where[few]]
            b = self.factor(where[pool], samples) * state.values[where[pool]]
            return np.asarray(np.abs(b.T @ a).max(axis=1))

        picked = select_batch(
            cost,
            kept,
            heat[where],
            options,
            rng,
            groups=self.budgets.groups[where].astype(np.int64),
            partners=partners if options.partners else None,
        )
        return np.asarray(where[picked])

    def factor(
        self, batch: npt.NDArray[np.int64], samples: SampleGradients
    ) -> npt.NDArray[np.float32]:
        """Per-sample gradients of flat positions, float32, shape (N, b)."""
        state = self.state
        out = np.empty((samples.n, batch.size), dtype=np.float32)
        owner = state.layer_of(batch)
        for i in np.unique(owner):
            here = np.flatnonzero(owner == i)
            name = state.layers[i].name
            local = torch.from_numpy(batch[here] - state.starts[i])
            out[:, here] = samples.gather(name, local.to(samples.mean[name].device)).cpu().numpy()
        return out

    def _quadratic(
        self,
        batch: npt.NDArray[np.int64],
        samples: SampleGradients,
        mean: dict[str, torch.Tensor],
    ) -> LocalQuadratic:
        state = self.state
        gradient = np.empty(batch.size, dtype=np.float32)
        owner = state.layer_of(batch)
        for i in np.unique(owner):
            here = np.flatnonzero(owner == i)
            flat = mean[state.layers[i].name].reshape(-1).cpu().numpy()
            gradient[here] = flat[batch[here] - state.starts[i]]
        w = state.values[batch]
        return LocalQuadratic(
            w=w,
            v=np.where(state.mask[batch], w, np.zeros_like(w)),
            gradient=gradient * np.float32(self.config.curvature.gradient_scale),
            factor=self.factor(batch, samples),
            ridge=self._ridge,
        )

    def _problem(self, quadratic: LocalQuadratic, batch: npt.NDArray[np.int64]) -> CardinalityQP:
        """Every budget keeps the count that it has now."""
        _, groups = np.unique(self.budgets.groups[batch], return_inverse=True)
        k = np.bincount(groups[self.state.mask[batch]], minlength=int(groups.max()) + 1)
        return quadratic.problem(k=k, groups=groups)

    def solve(
        self,
        problem: CardinalityQP | MIQP,
        x0: npt.NDArray[np.int8],
        seed: np.random.SeedSequence,
    ) -> tuple[Solution, float]:
        """The solver's answer and its energy; raises as `run`."""
        try:
            return solve_checked(self.solver, problem, x0, seed, self.stop)
        except UnsupportedProblemError:
            raise  # a wrong choice of solver
        except Exception as e:
            raise StepFailedError(
                f"step {len(self.history)}: solver '{self.solver.name}' failed: {e}"
            ) from e

    def _adapt(self, predicted: float, actual: float | None) -> None:
        """Trust region: less trust after a step that made things worse, back to normal after."""
        options = self.config.curvature
        if not options.adapt_ridge or actual is None or predicted >= 0 or options.ridge == 0:
            return
        if actual > 0:
            self._ridge = min(self._ridge * 2.0, options.ridge * RIDGE_RANGE)
        else:
            self._ridge = max(self._ridge / 2.0, options.ridge)


def _warm(heat: npt.NDArray[np.float32], batch: npt.NDArray[np.int64]) -> None:
    """What was in a batch lately is taken less readily."""
    heat *= 0.5
    heat[batch] = 1.0
