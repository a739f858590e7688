"""Exchanges at fixed cardinality, by heat bath: one step of every row as some tensor operations.

A step puts a random pruned variable i among the kept ones and lets go of one of those k + 1, drawn
from their Boltzmann weights as the argmax of ``h_j + J_ij`` plus Gumbel noise over the kept j of
i's group, against ``h_i`` plus Gumbel noise for i itself. (The change of energy is
``h_i - h_j - J_ij`` with ``J = 2 Q`` off the diagonal.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .layout import SAMPLE, Batch
from .noise import gumbel_table
from .search import Plan, Search

if TYPE_CHECKING:
    import torch

__all__ = ["ExchangeSearch"]


class ExchangeSearch(Search):
    """Searches at fixed cardinality.

    Attributes (beside those of `Search`)
    ----------
    bias : (M, W) 0 where kept, -inf elsewhere
    pruned : (M, P) int64, variables that can come in; slots from the problem's count on are unused
    group_bias : (B * G, W) 0 in the group, -inf outside; None with one group a problem
    """

    def __init__(self, batch: Batch, device: torch.device, sparse: bool) -> None:
        super().__init__(batch, device, sparse)
        import torch

        self.slots = max(1, int(batch.movers.max()))
        table = torch.from_numpy(gumbel_table(self.width, batch.shape.dtype)).to(device)
        self.table = table
        self.windows = table.unfold(0, self.width, 1)  # a view: row r is table[r : r + W]
        self.groups = self.to_device(batch.groups)
        self.counts = self.to_device(batch.k)
        self.group_bias: torch.Tensor | None = None
        if batch.shape.grouped:
            ids = torch.arange(batch.k.shape[1], device=device)
            same = self.groups[:, None, :] == ids[:, None]
            outside = torch.where(same, 0.0, -math.inf).to(self.dtype)
            self.group_bias = outside.view(-1, self.width)

    def start(self) -> int:
        """Rows of each problem: greedy additions to nothing, greedy removals from everything, and
        x0 (if the batch has them) completed by greedy additions."""
        import torch

        kinds = 3 if self.batch.shape.warm else 2
        self._set_rows(kinds)
        self._allocate(len(self.problem))
        kind = torch.arange(kinds, device=self.device).repeat(len(self.batch.n))
        self.removes = kind == 1
        self.first: torch.Tensor | None = None
        if kinds == 3:
            first = self.to_device(self.batch.first)[self.problem]
            self.first = torch.where((kind == 2)[:, None], first, -1)
        # how many variables of each group are still to be changed; padding's group: none
        sizes = torch.zeros_like(self.counts)
        sizes.scatter_add_(1, self.groups, torch.ones_like(self.groups))
        sizes[:, -1] = 0
        room = torch.where(self.removes[:, None], (sizes - self.counts)[self.problem],
                           self.counts[self.problem])  # fmt: skip
        self.room, self.total = room, room.sum(1)
        # inf where nothing may be changed: full groups, padding, what has been changed
        full = (room == 0).gather(1, self.groups[self.problem])
        self.blocked = torch.where(full, math.inf, 0.0).to(self.dtype)
        ones = self.batch.k.sum(1)
        self.filling = int(self.batch.n.max())
        return self.filling + int(np.maximum(ones, self.batch.n - ones).max())

    def construct(self, s: int) -> None:
        """First all variables of the rows that remove are set; then every row changes its best."""
        import torch

        if s < self.filling:
            i = torch.full_like(self.problem, s)
            self._flip(i, self.removes & (s < self.n[self.problem]))
            return
        s -= self.filling
        i = (torch.where(self.removes[:, None], -self.h, self.h) + self.blocked).argmin(1)
        if self.first is not None and s < self.first.shape[1]:
            i = torch.where(self.first[:, s] >= 0, self.first[:, s], i)
        ok = self.total > s
        self._flip(i, ok)
        at = i[:, None]
        self.blocked.scatter_(1, at, torch.where(ok[:, None], math.inf, self.blocked.gather(1, at)))
        if self.group_bias is None:
            return
        g = self.groups[self.problem].gather(1, at)
        self.room.scatter_add_(1, g, -ok.long()[:, None])
        closed = (self.room.gather(1, g) == 0) & ok[:, None]
        inside = self.group_bias.index_select(0, self._group_row(at)) == 0
        self.blocked = torch.where(closed & inside, math.inf, self.blocked)

    def begin(self) -> None:
        """After construction: the lists that steps work on."""
        import torch

        self.set_out()
        self.bias = torch.where(self.x, 0.0, -math.inf).to(self.dtype)
        self.pruned = self._pruned_lists()
        self._allocate_buffers()

    def _allocate_buffers(self) -> None:
        import torch

        self._row, self._noise = torch.empty_like(self.h), torch.empty_like(self.h)

    def _take_rows(self, rows: torch.Tensor) -> None:
        super()._take_rows(rows)
        self._allocate_buffers()

    def _pruned_lists(self) -> torch.Tensor:
        import torch

        sizes = torch.zeros_like(self.counts).scatter_add_(
            1, self.groups, torch.ones_like(self.groups)
        )
        moves = (self.counts > 0) & (self.counts < sizes)
        can = moves.gather(1, self.groups)[self.problem] & ~self.x
        index = torch.arange(self.width, device=self.device)
        lists = torch.where(can, index, self.width).sort(1).values[:, : self.slots]
        return lists.clamp_(max=self.width - 1).contiguous()

    def load_best(self, tick: Callable[[], None]) -> None:
        import torch

        super().load_best(tick)
        self.bias = torch.where(self.x, 0.0, -math.inf).to(self.dtype)
        self.pruned = self._pruned_lists()

    def _take_problems(self, index: torch.Tensor) -> None:
        super()._take_problems(index)
        self.groups, self.counts = self.groups[index], self.counts[index]
        if self.group_bias is not None:
            n_groups = self.counts.shape[1]
            by_problem = self.group_bias.view(-1, n_groups, self.width)
            self.group_bias = by_problem.index_select(0, index).view(-1, self.width)

    def _row_state(self) -> tuple[str, ...]:
        return (*super()._row_state(), "bias", "pruned")

    def _group_row(self, at: torch.Tensor) -> torch.Tensor:
        """Row of ``group_bias`` for the group of variable ``at`` (M, 1) of each row."""
        n_groups = self.counts.shape[1]
        return self.problem * n_groups + self.groups[self.problem, at[:, 0]]

    def _score(
        self, i: torch.Tensor, row: torch.Tensor, noisy: torch.Tensor | None
    ) -> torch.Tensor:
        """What the heat bath takes the argmax of, (M, W): -inf but for the kept of i's group."""
        import torch

        score = torch.add(self.h, row) if noisy is None else noisy.add_(self.h).add_(row)
        score.add_(self.bias)
        if self.group_bias is not None:
            score.add_(self.group_bias.index_select(0, self._group_row(i)))
        return score

    def step(self, plan: Plan, s: int) -> None:
        import torch

        p = plan.slots[s][:, None]
        i = self.pruned.gather(1, p)
        h_i = self.h.gather(1, i)
        # two arrays of the size of the state are used again in every step
        row = torch.index_select(self.J, 0, self.base + i[:, 0], out=self._row)
        if plan.noise is None or plan.temperatures is None:
            score = self._score(i, row, None)
            stay = h_i + self.margin[:, None].to(self.dtype)
        else:
            at, t = plan.noise[s], plan.temperatures[s][:, None]
            noise = torch.index_select(self.windows, 0, at, out=self._noise)
            score = self._score(i, row, noise.mul_(t))
            stay = self.table.take(at[:, None] + i).mul_(t).add_(h_i)
        # i itself is not among the kept: its share of the table lies open for its own noise
        move = score.amax(1, keepdim=True) > stay
        if plan.active is not None:
            move &= plan.active[s][:, None]
        if self.sparse:
            rows = move[:, 0].nonzero()[:, 0]
            if len(rows):
                self._exchange_some(rows, p, i, h_i, row, score)
        else:
            out = torch.where(move, score.argmax(1, keepdim=True), i)
            self._exchange_all(move, p, i, out, h_i, row)

    def _exchange_some(
        self,
        rows: torch.Tensor,
        p: torch.Tensor,
        i: torch.Tensor,
        h_i: torch.Tensor,
        row: torch.Tensor,
        score: torch.Tensor,
    ) -> None:
        w = self.width
        out = score.index_select(0, rows).max(1, keepdim=True).indices
        i, h_i = i.index_select(0, rows), h_i.index_select(0, rows)
        into, gone = rows * w + i[:, 0], rows * w + out[:, 0]
        change = row.index_select(0, rows)
        delta = h_i - self.h.take(gone)[:, None] - change.gather(1, out)
        change -= self.J.index_select(0, self.base.index_select(0, rows) + out[:, 0])
        self.h.index_add_(0, rows, change)
        self.bias.view(-1).index_fill_(0, into, 0.0).index_fill_(0, gone, -math.inf)
        self.x.view(-1).index_fill_(0, into, True).index_fill_(0, gone, False)
        slot = rows * self.slots + p[:, 0].index_select(0, rows)
        self.pruned.view(-1).index_copy_(0, slot, out[:, 0])
        energy = self.energy.index_select(0, rows) + delta[:, 0].double()
        self.energy.index_copy_(0, rows, energy)
        self.accepted.index_copy_(0, rows, self.accepted.index_select(0, rows) + 1)
        self._note_best(rows)

    def _exchange_all(
        self,
        move: torch.Tensor,
        p: torch.Tensor,
        i: torch.Tensor,
        out: torch.Tensor,
        h_i: torch.Tensor,
        row: torch.Tensor,
    ) -> None:
        """The same for every row: where out == i, every change is exactly 0."""
        delta = h_i - self.h.gather(1, out) - row.gather(1, out)
        row -= self.J.index_select(0, self.base + out[:, 0])
        self.h += row
        self.bias.scatter_(1, i, 0.0).scatter_(1, out, -math.inf)
        self.x.scatter_(1, i, True).scatter_(1, out, False)
        self.pruned.scatter_(1, p, out)
        self.energy += delta[:, 0].double()
        self.accepted += move[:, 0]
        self._note_best(None)

    def sample_moves(self) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        sample = self.movers.clamp(max=SAMPLE)
        columns = []
        for s in range(min(self.slots, SAMPLE)):
            slot = (s * self.movers).div(sample, rounding_mode="floor").clamp_(max=self.slots - 1)
            i = self.pruned.gather(1, slot[:, None])
            row = self.J.index_select(0, self.base + i[:, 0])
            change = self.h.gather(1, i) - self._score(i, row, None)
            columns.append(torch.where((s < sample)[:, None], change, math.inf).float())
        return torch.stack(columns, 1), sample

    def slots_for(self, word: torch.Tensor | None, steps: range) -> torch.Tensor:
        """Slots (c, M) for random words (c, M), or in order for these steps of a sweep."""
        import torch

        if word is not None:
            return (word * self.row_movers) >> 32
        s = torch.from_numpy(np.arange(steps.start, steps.stop)).to(self.device)
        return torch.minimum(s[:, None], self.row_movers - 1)
