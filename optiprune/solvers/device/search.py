"""What exchange and flip searches share: M = B * R rows of state, stepped all at once.

Row m is replica ``m % R`` of problem ``m // R``. That a problem has the same answer bit for bit,
whatever else is in its batch, rests on three rules for everything below:

- only operations whose every element is one correctly rounded operation, a selection or a copy
  (never a sum or a product of matrices along a dimension, ``log``, ``exp``, or a fused
  multiply-add);
- the first index wins among equal maxima (what torch documents of argmax and argmin);
- random numbers are functions of (problem, replica, step), see `noise`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .layout import Batch
from .noise import philox2x32

if TYPE_CHECKING:
    import torch

__all__ = ["Plan", "Search"]


@dataclass(slots=True)
class Plan:
    """Steps to be carried out one after another: what they need, made at once.

    Attributes
    ----------
    slots : (c, M) int64, which mover each row tries in each step
    noise : (c, M) int64, where in the table its random numbers begin; None at temperature 0
    temperatures : (c, M) in the precision of the search; None at temperature 0
    active : (c, M) bool, rows that may move; None if all may
    """

    slots: torch.Tensor
    noise: torch.Tensor | None = None
    temperatures: torch.Tensor | None = None
    active: torch.Tensor | None = None

    def __len__(self) -> int:
        return int(self.slots.shape[0])


class Search(ABC):
    """The rows of one batch on a device.

    Attributes
    ----------
    J : (B * W, W) couplings
    base : (M,) int64, row of J at which the problem of each row begins
    linear : (B, W)
    h : (M, W) fields ``linear + Jx``
    x, best_x : (M, W) bool; best_x is at every moment a state that was reached
    energy, best : (M,) float64, summed up from the changes: estimates, with the fields' rounding
    accepted : (M,) int64
    margin : (M,), what a change must exceed to be told from rounding at temperature 0
    sparse : touch the rows that accept a move alone, which needs their list on the host: best
        where that is at hand (a CPU). Else all rows are updated, without waiting for the device.
    """

    def __init__(self, batch: Batch, device: torch.device, sparse: bool) -> None:
        import torch

        self.batch = batch
        self.device = device
        self.sparse = sparse
        self.width = batch.shape.width
        self.J = torch.from_numpy(batch.J).to(device).view(-1, self.width)
        self.linear = torch.from_numpy(batch.linear).to(device)
        self.dtype = self.linear.dtype
        self.n = self.to_device(batch.n)
        self.movers = self.to_device(batch.movers)
        self.words = self.to_device(batch.words)
        self._set_rows(1)

    def to_device(self, a: npt.NDArray[Any]) -> torch.Tensor:
        import torch

        return torch.from_numpy(np.ascontiguousarray(a)).to(self.device)

    def _set_rows(self, replicas: int) -> None:
        """Row bookkeeping for ``replicas`` rows a problem."""
        import torch

        self.replicas = replicas
        count = len(self.batch.n)
        self.problem = torch.arange(count, device=self.device).repeat_interleave(replicas)
        self.base = self.problem * self.width
        self.row_movers = self.movers[self.problem]

    # what a subclass fills in -------------------------------------------------------------------

    @abstractmethod
    def start(self) -> int:
        """Allocate some rows a problem, one for each way to begin; the steps of `construct`."""

    @abstractmethod
    def construct(self, s: int) -> None:
        """Step s of the construction."""

    @abstractmethod
    def step(self, plan: Plan, s: int) -> None:
        """Carry out step ``s`` of the plan."""

    @abstractmethod
    def sample_moves(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What some moves would change the energy by, with 1 row a problem: (B, S, W) float32, inf
        where there is none, and how many of the S tries of each problem are not padding, (B,)."""

    # what both use ------------------------------------------------------------------------------

    def random_plan(self, first: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Two random words, (count, M) each, for steps first .. first + count - 1."""
        import torch

        words = self.words[self.problem]
        replica = torch.arange(self.replicas, device=self.device).repeat(len(self.batch.n))
        steps = torch.arange(first, first + count, device=self.device) & 0xFFFFFFFF
        row = (words[:, 1] + replica) & 0xFFFFFFFF
        return philox2x32(steps[:, None], row[None], words[None, :, 0])

    def _allocate(self, rows: int) -> None:
        import torch

        w, device = self.width, self.device
        self.h = self.linear[self.problem].clone()
        self.x = torch.zeros(rows, w, dtype=torch.bool, device=device)
        self.best_x = torch.zeros_like(self.x)
        self.energy = torch.zeros(rows, dtype=torch.float64, device=device)
        self.best = torch.full_like(self.energy, math.inf)
        self.accepted = torch.zeros(rows, dtype=torch.int64, device=device)
        self.margin = torch.zeros_like(self.energy)

    def _flip(self, i: torch.Tensor, ok: torch.Tensor) -> None:
        """Change variable i (M,) of each row where ok (M,); fields and energy follow."""
        import torch

        at = i[:, None]
        on = self.x.gather(1, at)
        # times 1, -1 or 0, which is exact
        sign = torch.where(on, -1.0, 1.0).to(self.dtype) * ok[:, None]
        self.energy += (self.h.gather(1, at) * sign)[:, 0].double()
        self.h += self.J.index_select(0, self.base + i).mul_(sign)
        self.x.scatter_(1, at, on ^ ok[:, None])

    def set_out(self) -> None:
        """After construction: the state is the incumbent."""
        eps = float(np.finfo(self.batch.shape.dtype).eps)
        self.margin = self.h.abs().amax(1).double() * (4.0 * eps)
        self.best = self.energy.clone()
        self.best_x = self.x.clone()

    def keep_best_start(self) -> None:
        """Of the rows of each problem go on with the best, the first among equals."""
        import torch

        rows = self.best.view(-1, self.replicas).argmin(1)
        rows += torch.arange(len(rows), device=self.device) * self.replicas
        self._set_rows(1)
        self._take_rows(rows)

    def spread(self, replicas: int) -> None:
        """From one row a problem to ``replicas`` equal ones."""
        rows = self.problem.repeat_interleave(replicas)
        self._set_rows(replicas)
        self._take_rows(rows)

    def keep(self, problems: npt.NDArray[np.int64]) -> None:
        """Go on with some of the problems, all replicas of each."""
        import torch

        old = self.batch
        some = {
            name: getattr(old, name)[problems]
            for name in ("exponent", "n", "movers", "sweeps", "words", "k")
        }
        self.batch = replace(old, **some)  # stacked arrays stay: they are on the device already
        index = self.to_device(problems)
        self._take_problems(index)
        replica = torch.arange(self.replicas, device=self.device)
        rows = (index[:, None] * self.replicas + replica).flatten()
        self._set_rows(self.replicas)
        self._take_rows(rows)

    def _take_problems(self, index: torch.Tensor) -> None:
        self.J = self.J.view(-1, self.width, self.width).index_select(0, index)
        self.J = self.J.view(-1, self.width)
        self.linear = self.linear.index_select(0, index)
        self.n, self.movers, self.words = self.n[index], self.movers[index], self.words[index]

    def _take_rows(self, rows: torch.Tensor) -> None:
        for name in self._row_state():
            setattr(self, name, getattr(self, name).index_select(0, rows))

    def _row_state(self) -> tuple[str, ...]:
        return ("h", "x", "best_x", "energy", "best", "accepted", "margin")

    def load_best(self, tick: Callable[[], None]) -> None:
        """Make the incumbents the state; fields are summed up anew, in the order of the index."""
        self.x = self.best_x.clone()
        self.h = self.linear[self.problem].clone()
        for i in range(int(self.batch.n.max())):
            tick()
            self.h += self.J.index_select(0, self.base + i) * self.x[:, i, None]
        self.energy = self.best.clone()

    def _note_best(self, rows: torch.Tensor | None) -> None:
        """Compare energies with the incumbents, of some rows (a list on the host's side) or all."""
        import torch

        if rows is None:
            better = self.energy < self.best - self.margin
            self.best = torch.where(better, self.energy, self.best)
            torch.where(better[:, None], self.x, self.best_x, out=self.best_x)
            return
        energy = self.energy.index_select(0, rows)
        better = energy < self.best.index_select(0, rows) - self.margin.index_select(0, rows)
        improved = better.nonzero()[:, 0]
        if len(improved):
            rows = rows.index_select(0, improved)
            self.best_x.index_copy_(0, rows, self.x.index_select(0, rows))
            self.best.index_copy_(0, rows, energy.index_select(0, improved))

    def problem_best(self) -> npt.NDArray[np.float64]:
        """(B,) estimated energy of the best replica, in the batch's units."""
        return np.asarray(self.best.view(-1, self.replicas).amin(1).cpu().numpy())

    def problem_margin(self) -> npt.NDArray[np.float64]:
        """(B,) the margin, the widest of the replicas."""
        return np.asarray(self.margin.view(-1, self.replicas).amax(1).cpu().numpy())

    def problem_accepted(self) -> npt.NDArray[np.int64]:
        """(B,) accepted moves of all replicas."""
        return np.asarray(self.accepted.view(-1, self.replicas).sum(1).cpu().numpy())

    def harvest(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
        """Incumbents (B, R, W) and their estimated energies (B, R), on the host."""
        shape = (len(self.batch.n), self.replicas)
        x = self.best_x.view(*shape, self.width).cpu().numpy()
        return x, self.best.view(*shape).cpu().numpy()
