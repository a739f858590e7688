"""Masks and values together on the Fisher model: linearise, fit, exchange batches, check, keep."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from optiprune.curvature import CalibrationError
from optiprune.fisher_subset import FisherSubset
from optiprune.masks.file import pack, unpack

from .global_loss import GlobalSearch
from .initial import best_per_group
from .records import StepRecord
from .steps import Stored

__all__ = ["SubsetFit"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]

# per-sample gradients held at once, elements: 1 GiB
_MOST = 1 << 28
# tries of a round with more ridge each, before it is given up
_TRIES = 4
_LESS_TRUST = 4.0
# what the seeds of the rounds are derived by, apart from those of the search
_SEEDS = 11


@dataclass(frozen=True, slots=True, eq=False)
class _Point:
    """The model around the present weights: candidates, their gradients, and what b is made of."""

    candidates: Indices
    gradients: npt.NDArray[np.float32]
    mean: Floats  # g of the candidates
    pulled: Floats  # (G'G / N) v of the candidates
    energy: float  # v'(G'G / N)v, v all kept weights
    slope: float  # g'v
    curvature: npt.NDArray[np.floating]  # (P,) diagonal of the Fisher matrix


@dataclass(frozen=True, slots=True, eq=False)
class _Proposal:
    mask: Bools
    values: npt.NDArray[np.floating]
    predicted: float
    solver: str
    status: str
    seconds: float


@dataclass(slots=True)
class SubsetFit:
    """Moves ``state.mask`` and ``state.values`` of a search; fills its history.

    A round stays if the loss on held-out data, or without them on all calibration data, is no
    higher.
    """

    search: GlobalSearch
    _ridge: float = 0.0
    _calls: int = 0

    def run(self, stage: int) -> None:
        """Rounds at the density of now, until one finds nothing better on held-out data.

        Raises as `GlobalSearch.run`; the state is as after the last round that ended.
        """
        options = self.search.config.subset
        self._ridge = self._ridge or options.ridge
        parent, self._calls = (*self.search.seed.spawn_key, _SEEDS, self._calls), self._calls + 1
        before = self._loss(self.search.state.mask)
        for turn in range(options.rounds):
            key = f"subset/{parent[-1]}/{turn}"
            found = self.search.steps.get(key)
            if found is not None:
                before, better = self._restored(found)
                if not better:
                    break
                continue
            first = len(self.search.history)
            seed = np.random.SeedSequence(
                entropy=self.search.seed.entropy, spawn_key=(*parent, turn)
            )
            before, better = self._round(stage, seed, before)
            self._store(key, first, before, better)
            if not better:
                break

    def _store(self, key: str, first: int, before: float, better: bool) -> None:
        """Keep a round; its records begin at number ``first``."""
        search, state = self.search, self.search.state
        arrays = {
            "mask": pack(torch.from_numpy(state.mask)),
            "values": torch.from_numpy(state.values),
            "score": torch.from_numpy(search.score),
        }
        record = {
            "loss": before,
            "better": better,
            "ridge": self._ridge,
            "steps": [r.as_dict() for r in search.history[first:]],
        }
        search.steps.put(key, arrays, record)
        search.steps.check()

    def _restored(self, found: Stored) -> tuple[float, bool]:
        """What `_round` gave."""
        search, state = self.search, self.search.state
        state.mask = unpack(found.arrays["mask"], (state.n,)).numpy()
        state.values = found.arrays["values"].numpy()
        search.score = found.arrays["score"].numpy()
        self._ridge = found.record["ridge"]
        for table in found.record["steps"]:
            self._report(StepRecord.from_dict(table))
        return found.record["loss"], found.record["better"]

    def _round(self, stage: int, seed: np.random.SeedSequence, before: float) -> tuple[float, bool]:
        """One linearisation; (loss after it, whether it brought something)."""
        search, state = self.search, self.search.state
        linear_seed, solver_seed = seed.spawn(2)
        began = time.perf_counter()
        point = self._point(linear_seed)
        for _ in range(_TRIES):
            ridge = self._ridge
            proposal = self._propose(point, ridge, solver_seed)
            actual = self._measured(proposal) - before
            accepted = actual <= search.config.accept.tolerance
            changed = int(np.count_nonzero(proposal.mask != state.mask))
            if accepted:
                state.mask, state.values = proposal.mask, proposal.values
                # at the minimum there is no slope: what losing a weight costs is its curvature's
                search.score = (point.curvature + search.config.subset.ridge) * state.values**2
                before += actual
                self._ridge = max(ridge / 2.0, search.config.subset.ridge)
            else:
                self._ridge = ridge * _LESS_TRUST
            self._record(stage, point, proposal, ridge, actual, accepted, changed, before, began)
            if accepted:
                return before, actual < 0
        return before, False

    def _point(self, seed: np.random.SeedSequence) -> _Point:
        search, state = self.search, self.search.state
        kept = int(np.count_nonzero(state.mask))
        room = max(1, _MOST // max(1, 2 * kept))
        options = search.objective.options
        count = min(search.config.subset.samples, options.samples, room)
        options = options.model_copy(update={"samples": count})
        objective = replace(search.objective, options=options)
        samples, mean = objective.linearise(state.weights(), search.train, seed)
        names = [layer.name for layer in state.layers]
        gradient = _flat([mean[n] for n in names]) * search.config.curvature.gradient_scale
        diagonal = _flat([samples.diagonal(n) for n in names])
        v = np.where(state.mask, state.values, 0.0)
        candidates = self._candidates(gradient**2 / (diagonal + self._ridge))
        G = search.factor(candidates, samples)
        along = np.zeros(samples.n)
        for i, layer in enumerate(state.layers):
            part = torch.from_numpy(v[state.span(i)]).reshape(layer.rows, layer.cols)
            device = samples.mean[layer.name].device
            along += samples.project(layer.name, part.to(device)).double().cpu().numpy()
        pulled = (along.astype(np.float32) @ G).astype(np.float64) / samples.n
        return _Point(
            candidates=candidates,
            gradients=G,
            mean=gradient[candidates],
            pulled=pulled,
            energy=float(along @ along) / samples.n,
            slope=float(gradient @ v),
            curvature=diagonal,
        )

    def _candidates(self, gain: Floats) -> Indices:
        """The kept weights, and of every budget as many pruned ones, those that promise most."""
        state, budgets = self.search.state, self.search.budgets
        kept = np.bincount(budgets.groups[state.mask], minlength=len(budgets.sizes))
        gain = np.where(state.mask, np.inf, gain)
        chosen = best_per_group(gain, budgets.groups, np.minimum(2 * kept, budgets.sizes))
        return np.flatnonzero(chosen | state.mask)

    def _propose(self, point: _Point, ridge: float, seed: np.random.SeedSequence) -> _Proposal:
        search, state = self.search, self.search.state
        at = point.candidates
        v = np.where(state.mask, state.values, 0.0).astype(np.float64)
        linear = point.pulled + ridge * v[at] - point.mean
        fit = FisherSubset(point.gradients, linear, ridge, state.mask[at])
        now = -0.5 * (point.energy + ridge * float(v @ v)) + point.slope
        began = time.perf_counter()
        solver, status = search.solver.name, "heuristic"
        groups = search.budgets.groups[at]
        drawn, *children = seed.spawn(1 + search.config.subset.exchanges)
        # budgets take turns; where there are more than batches, others in every round
        shared = np.random.default_rng(drawn).permutation(np.unique(groups))
        idle = 0
        for turn, child in enumerate(children):
            among = None if len(shared) == 1 else groups == shared[turn % len(shared)]
            batch = fit.batch(search.config.subset.size, among)
            changed = 0
            if batch is not None:
                solution, _ = search.solve(batch.problem, batch.x0, child)
                assert solution.x is not None
                changed = fit.exchange(batch, solution.x)
                solver, status = solution.stats.solver, solution.status.value
            idle = 0 if changed else idle + 1
            if idle >= len(shared):
                break
        seconds = time.perf_counter() - began
        mask = state.mask.copy()
        mask[at] = fit.support
        values = state.dense.copy()
        w = fit.values()
        values[at[fit.support]] = w[fit.support].astype(values.dtype)
        predicted = -0.5 * float(w @ linear) - now
        return _Proposal(mask, values, predicted, solver, status, seconds)

    def _measured(self, proposal: _Proposal) -> float:
        state = self.search.state
        old = state.values
        try:
            state.values = proposal.values
            return self._loss(proposal.mask)
        except CalibrationError:  # it overflows: worse than anything
            return float("inf")
        finally:
            state.values = old

    def _loss(self, mask: Bools) -> float:
        """On held-out data; without them on the others, for a model far off is worse there too."""
        search = self.search
        data = search.train if search.holdout is None else search.holdout
        return search.objective.value(search.state.weights(mask), data)

    def _record(
        self,
        stage: int,
        point: _Point,
        proposal: _Proposal,
        ridge: float,
        actual: float,
        accepted: bool,
        changed: int,
        loss: float,
        began: float,
    ) -> None:
        search, state = self.search, self.search.state
        unseen = search.holdout is not None
        record = StepRecord(
            step=len(search.history),
            stage=stage,
            layers=tuple(state.layers[i].name for i in np.unique(state.layer_of(point.candidates))),
            size=len(point.candidates),
            kept=int(np.count_nonzero(state.mask)),
            changed=changed,
            predicted=proposal.predicted,
            actual=actual if unseen else None,
            accepted=accepted,
            objective=loss if unseen else None,
            ridge=ridge,
            density=state.density,
            solver=proposal.solver,
            status=proposal.status,
            gap=None,
            solve_s=proposal.seconds,
            wall_s=time.perf_counter() - began,
        )
        self._report(record)

    def _report(self, record: StepRecord) -> None:
        self.search.history.append(record)
        if self.search.callback is not None:
            self.search.callback(record)


def _flat(parts: list[Tensor]) -> Floats:
    return torch.cat([p.reshape(-1) for p in parts]).double().cpu().numpy()
