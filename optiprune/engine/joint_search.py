"""Masks for weights that will be re-fitted: the rows of one layer as best-subset problems.

A start for the whole layer (the first mask, or `optiprune.admm` where its error after the refit is
lower), then batches of every row by the solver, each row kept only if its error falls.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from optiprune.admm import admm_support
from optiprune.config import Config
from optiprune.curvature.gram import LayerGram
from optiprune.refit import RefitResult, refit_rows
from optiprune.solvers import Solver, Stop
from optiprune.solvers.trajectory import Trajectory

from .damping import sample_rows
from .largest import largest_on_device
from .pattern_search import GroupTask
from .row_blocks import ROUNDING, Judged
from .row_solving import RowAnswer, SomeRows, Task, solve_rows
from .row_subset import subset_batch
from .solving import solve_checked, trajectory_of

__all__ = ["LEAST_DAMPING", "JointSearch", "SubsetTask", "within_budgets"]

Bools = npt.NDArray[np.bool_]
# rows on which two first supports are compared
_COMPARED = 64
_ALL = slice(None)
# of the Gram matrix' mean diagonal, in choosing groups
LEAST_DAMPING = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class SubsetTask:
    """What the rows of a layer share.

    Attributes
    ----------
    H : (groups, cols, cols) float64, damped Gram matrices
    b : (rows, cols) float64, targets with what damping adds to them
    size : weights in a batch
    rounds : batches of a row, one after the other, until one changes nothing
    """

    H: npt.NDArray[np.float64]
    b: npt.NDArray[np.float64]
    size: int
    rounds: int
    solver: Solver
    stop: Stop | None

    def solve(
        self, row: int, mask: Bools, visited: Bools, seed: np.random.SeedSequence
    ) -> RowAnswer | None:
        """The solver's answers for one row; None where there is nothing to exchange."""
        start = time.perf_counter()
        H = self.H[row * self.H.shape[0] // self.b.shape[0]]
        now, total, seen = mask.copy(), 0.0, np.zeros_like(mask)
        path: Trajectory = ()
        answer: RowAnswer | None = None
        for child in seed.spawn(self.rounds):
            batch = subset_batch(H, self.b[row], now, self.size)
            if batch is None:
                break
            solution, change = solve_checked(self.solver, batch.problem, batch.x0, child, self.stop)
            assert solution.x is not None
            late = path[-1][0] if path else 0.0
            path += tuple((late + t, total + e) for t, e in trajectory_of(solution, change))
            moved = not np.array_equal(solution.x, batch.x0)
            now[batch.index] = solution.x.astype(bool)
            total += change
            seen[batch.index] = True
            answer = RowAnswer(
                row=row,
                mask=now.copy(),
                index=np.flatnonzero(seen),
                predicted=total,
                solver=solution.stats.solver,
                status=solution.status,
                gap=solution.gap,
                seconds=time.perf_counter() - start,
                trajectory=path,
            )
            if not moved:
                break
        return answer


class JointSearch:
    """The mask and the re-fitted values of one layer.

    Attributes
    ----------
    mask : (rows, cols) bool
    fit : of that mask, made when it is asked for
    refit_s : seconds spent in refits
    """

    def __init__(
        self,
        gram: LayerGram,
        held: LayerGram | None,
        w: Tensor,
        first: Tensor,
        config: Config,
        damping: float,
    ) -> None:
        self.gram, self.held, self.w, self.config = gram, held, w, config
        self.damping = damping
        self.b = gram.cross(w)
        self.energy = (self.b * w).sum(1) if gram.same_inputs else gram.target_energy(w)
        self.refit_s = 0.0
        self.mask = first
        self._fit: RefitResult | None = None
        self._near = torch.where(first, w, 0.0)

    @property
    def fit(self) -> RefitResult:
        if self._fit is None:
            self._fit = self._refit(self.mask)
        return self._fit

    def _refit(self, mask: Tensor) -> RefitResult:
        start = time.perf_counter()
        fit = self._refit_rows(mask, torch.arange(len(mask), device=mask.device))
        self.refit_s += time.perf_counter() - start
        return fit

    def _refit_changed(self, mask: Tensor, differs: Bools) -> RefitResult:
        """The refit of a mask that differs from the present one in some rows."""
        if self.gram.groups > 1 or 2 * int(differs.sum()) > len(mask):
            return self._refit(mask)
        start = time.perf_counter()
        index = torch.nonzero(torch.from_numpy(differs))[:, 0].to(mask.device)
        found, out = self._refit_rows(mask, index), {}
        for part in fields(RefitResult):
            out[part.name] = getattr(self.fit, part.name).clone()
            out[part.name][index] = getattr(found, part.name)
        self.refit_s += time.perf_counter() - start
        return RefitResult(**out)

    def _refit_rows(self, mask: Tensor, index: Tensor) -> RefitResult:
        """The refit of some rows: as many of every group, in order."""
        kept = mask[index]
        values = torch.where(kept, self.w[index], 0.0)
        b, energy, near = self.b[index], self.energy[index], self._near[index]
        tolerance = self.config.refit.tolerance
        return refit_rows(self.gram.H, b, energy, kept, values, self.damping, near, tolerance)

    def _judged(self, fit: RefitResult, index: Tensor | slice = _ALL) -> Tensor:
        """Errors of the rows on the data that judge, (rows,)."""
        return fit.error_after if self.held is None else self.held.error(fit.values, self.w[index])

    def start(self, project: Callable[[Tensor], Tensor]) -> bool:
        """Take the support of `admm_support` if it is better in a sample of the rows; whether it
        was."""
        support, near = admm_support(*self._damped(0.0), self.w, project)
        index = sample_rows(self.gram.groups, len(self.w), _COMPARED).to(self.w.device)
        new, old = (
            float(self._judged(self._refit_rows(mask, index), index).sum())
            for mask in (support, self.mask)
        )
        if not new < old:
            return False
        self.mask, self._near, self._fit = support, near, None
        return True

    def _damped(self, least: float) -> tuple[Tensor, Tensor]:
        """H and b of the refit's damped problem, in units of the mean diagonal at ``least``."""
        damping = max(self.damping, least)
        diagonal = self.gram.H.diagonal(dim1=1, dim2=2)
        unit = damping * diagonal.mean(1)
        eye = torch.eye(self.gram.cols, dtype=torch.float64, device=self.gram.H.device)
        ridge = unit.repeat_interleave(len(self.w) // self.gram.groups)[:, None]
        H = self.gram.H + unit[:, None, None] * eye
        # a dead input's weight is damped like the others, but there is nothing to keep it for
        live = (diagonal > 0).repeat_interleave(len(self.w) // self.gram.groups, dim=0)
        return H, self.b + torch.where(live, ridge * self.w, 0.0)

    def improve(
        self,
        solver: Solver,
        stop: Stop | None,
        seeds: Callable[[int], np.random.SeedSequence],
        pattern: tuple[int, int] | None = None,
        share: float = 1.0,
    ) -> Judged:
        """One round: batches of rows by the solver, or sweeps over the pattern's groups, for
        ``share`` of the rows, those with the largest errors.
        """
        # groups are chosen by inverses: a Gram matrix of few samples has none
        damped = self._damped(0.0 if pattern is None else LEAST_DAMPING)
        H, b = (x.cpu().numpy() for x in damped)
        options = self.config.joint
        task: Task
        if pattern is None:
            task = SubsetTask(H, b, options.size, options.rounds, solver, stop)
        else:
            task = GroupTask(H, b, pattern[1], options.sweeps)
        chosen = np.zeros(len(self.w), dtype=bool)
        order = torch.argsort(self.fit.error_after, descending=True, stable=True).cpu().numpy()
        chosen[order[: math.ceil(share * len(order))]] = True
        task = SomeRows(task, chosen)
        before = self.mask.cpu().numpy()
        none = np.zeros_like(before)
        # a row's matrices are small: threads inside BLAS cost ten times what they bring
        with threadpool_limits(1, user_api="blas"):
            answers = list(solve_rows(task, before, none, seeds, self.config.workers))
        proposed = before.copy()
        for a in answers:
            if a is not None:
                proposed[a.row] = a.mask
        differs = (proposed != before).any(1)
        mask = torch.from_numpy(proposed).to(self.mask.device)
        fit = self._refit_changed(mask, differs)
        train = (fit.error_after - self.fit.error_after).cpu().numpy()
        good = differs & (train < -ROUNDING * self.energy.cpu().numpy())
        holdout = None
        if self.held is not None:
            holdout = (self._judged(fit) - self._judged(self.fit)).cpu().numpy()
            good &= holdout <= self.config.accept.tolerance
        self._take(torch.from_numpy(good).to(self.mask.device), mask, fit)
        flips = (proposed != before).sum(1)
        return Judged(answers, differs, good, flips, train, holdout)

    def _take(self, rows: Tensor, mask: Tensor, fit: RefitResult) -> None:
        old = self.fit

        def pick(new: Tensor, was: Tensor) -> Tensor:
            return torch.where(rows[:, None] if new.ndim == 2 else rows, new, was)

        self.mask = pick(mask, self.mask)
        parts = (part.name for part in fields(RefitResult))
        self._fit = RefitResult(*(pick(getattr(fit, k), getattr(old, k)) for k in parts))


def within_budgets(
    score: Tensor, like: Tensor, by_row: bool, pattern: tuple[int, int] | None
) -> Tensor:
    """The highest scores, as many as ``like`` keeps of each group of M, of each row, or in all.

    Parameters
    ----------
    score, like : (rows, cols), ``like`` bool
    """
    if pattern is None and not by_row:
        return largest_on_device(score.flatten(), int(like.sum())).reshape(like.shape)
    width = like.shape[1] if pattern is None else pattern[1]
    kept = like.reshape(-1, width).sum(1)
    k = int(kept[0]) if len(kept) else 0
    if bool((kept == k).all()):
        groups = score.reshape(-1, width)
        best = groups.topk(k, dim=1, sorted=False).indices
        chosen = torch.zeros_like(groups, dtype=torch.bool).scatter_(1, best, True)
        return chosen.reshape(like.shape)
    order = torch.argsort(score.reshape(-1, width), dim=1, descending=True, stable=True)
    rank = torch.empty_like(order)
    rank.scatter_(1, order, torch.arange(width, device=order.device).expand_as(order))
    return (rank < kept[:, None]).reshape(like.shape)
