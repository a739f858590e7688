"""Flips without constraints, by Metropolis' rule, variable after variable.

A flip of variable i changes the energy by ``s h_i`` with ``s = 1 - 2 x_i`` and is accepted if that
is below ``T`` times an exponentially distributed number, which is to say with probability
``min(1, exp(-s h_i / T))``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .layout import Batch
from .noise import exponential_table
from .search import Plan, Search

if TYPE_CHECKING:
    import torch

__all__ = ["FlipSearch"]


class FlipSearch(Search):
    """Searches over all assignments; slots are the variables themselves."""

    def __init__(self, batch: Batch, device: torch.device, sparse: bool) -> None:
        super().__init__(batch, device, sparse)
        import torch

        self.slots = int(batch.n.max())
        self.table = torch.from_numpy(exponential_table(batch.shape.dtype)).to(device)

    def start(self) -> int:
        """Rows of each problem: nothing set, and x0 if the batch has them."""
        import torch

        kinds = 2 if self.batch.shape.warm else 1
        self._set_rows(kinds)
        self._allocate(len(self.problem))
        kind = torch.arange(kinds, device=self.device).repeat(len(self.batch.n))
        first = self.to_device(self.batch.first)[self.problem]
        self.first = torch.where((kind == 1)[:, None], first, -1)
        return int(self.first.shape[1])

    def construct(self, s: int) -> None:
        """Set the next variable of x0."""
        self._flip(self.first[:, s].clamp(min=0), self.first[:, s] >= 0)

    def begin(self) -> None:
        """After construction."""
        self.set_out()

    def step(self, plan: Plan, s: int) -> None:
        import torch

        i = plan.slots[s][:, None]
        x_i = self.x.gather(1, i)
        h_i = self.h.gather(1, i)
        delta = torch.where(x_i, -h_i, h_i)
        if plan.noise is None or plan.temperatures is None:
            move = delta < -self.margin[:, None].to(self.dtype)
        else:
            move = delta < (self.table.take(plan.noise[s]) * plan.temperatures[s])[:, None]
        if plan.active is not None:
            move &= plan.active[s][:, None]
        rows = None
        if self.sparse:
            rows = move[:, 0].nonzero()[:, 0]
            if not len(rows):
                return
            i, x_i, delta = (a.index_select(0, rows) for a in (i, x_i, delta))
            change = self.J.index_select(0, self.base.index_select(0, rows) + i[:, 0])
            change = torch.where(x_i, -change, change)
            self.h.index_add_(0, rows, change)
            at = rows * self.width + i[:, 0]
            self.x.view(-1).index_copy_(0, at, ~x_i[:, 0])
            energy = self.energy.index_select(0, rows) + delta[:, 0].double()
            self.energy.index_copy_(0, rows, energy)
            self.accepted.index_copy_(0, rows, self.accepted.index_select(0, rows) + 1)
        else:
            change = self.J.index_select(0, self.base + i[:, 0])
            # times 1, -1 or 0, which is exact
            sign = torch.where(x_i, -1.0, 1.0).to(self.dtype) * move
            self.h += change.mul_(sign)
            self.x.scatter_(1, i, x_i ^ move)
            self.energy += (delta * move)[:, 0].double()
            self.accepted += move[:, 0]
        self._note_best(rows)

    def sample_moves(self) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        change = torch.where(self.x, -self.h, self.h)
        inside = torch.arange(self.width, device=self.device) < self.n[:, None]
        return torch.where(inside, change, math.inf).float()[:, :, None], self.n

    def slots_for(self, word: torch.Tensor | None, steps: range) -> torch.Tensor:
        """Slots (c, M): the variables in order, over and over."""
        import torch

        s = torch.from_numpy(np.arange(steps.start, steps.stop)).to(self.device)
        return s[:, None] % self.row_movers
