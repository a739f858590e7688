"""Local search over exchanges of channels between stripes, from one order downhill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .moves import PAIRS, best_swaps, insertion_gains, pair_exchanges, stripe_value

__all__ = ["Descent"]

Order: TypeAlias = npt.NDArray[np.int64]
Exchanged: TypeAlias = Callable[[int, int], tuple[Order, Order]]

# a move must gain this share of what a stripe keeps on average; below it float32 sums decide
_FLOOR = 1e-6


class Descent:
    """An order, what each stripe keeps, and what every channel would gain at every position.

    Parameters
    ----------
    blocks : scores laid out by channel, (channels, run, rows) float32 each
    order : (channels,), changed in place
    q : channels of a stripe, between 2 and half of them
    n, m : the pattern
    """

    def __init__(
        self, blocks: Sequence[npt.NDArray[np.float32]], order: Order, q: int, n: int, m: int
    ) -> None:
        self.blocks, self.order, self.q, self.n, self.m = blocks, order, q, n, m
        self.stripes = len(order) // q
        self.gains = np.empty((len(order), len(order)), np.float32)
        self.values = np.empty(self.stripes)
        # two for two is priced where all that a stripe has is one group of four
        self.fours = q == m == 4 and [b.shape[1] for b in blocks] == [1]
        self.stale = np.empty(self.stripes, bool)
        shape = self.stripes, self.stripes
        self._swap = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
        self._pair = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
        self._refresh(np.arange(self.stripes))

    @property
    def value(self) -> float:
        """What all stripes keep."""
        return float(self.values.sum())

    def run(self) -> None:
        """Make moves until none gains."""
        while True:
            while self._swap_once():
                pass
            if not self.fours or not self._exchange_pairs():
                return

    def shake(self, share: float, rng: np.random.Generator) -> None:
        """Shuffle the channels of a share of the stripes, two at least."""
        stripes = rng.choice(self.stripes, max(2, round(share * self.stripes)), replace=False)
        at = (stripes[:, None] * self.q + np.arange(self.q)).reshape(-1)
        self.order[at] = rng.permutation(self.order[at])
        self._refresh(stripes)

    def go_to(self, order: Order) -> None:
        """Take this order."""
        moved = (order != self.order).reshape(self.stripes, self.q).any(1)
        self.order[:] = order
        self._refresh(np.flatnonzero(moved))

    def _members(self, stripe: int) -> Order:
        return self.order[stripe * self.q : (stripe + 1) * self.q]

    def _keeps(self, members: Order) -> float:
        return sum(stripe_value(b, members, self.n, self.m) for b in self.blocks)

    def _refresh(self, stripes: npt.NDArray[np.integer]) -> None:
        for s in stripes:
            at = int(s) * self.q
            gains = self.gains[at : at + self.q]
            gains[:] = 0.0
            for b in self.blocks:
                insertion_gains(b, self.order, at, self.q, self.n, self.m, gains)
            self.values[s] = self._keeps(self._members(int(s)))
        self.stale[stripes] = True

    def _swap_once(self) -> bool:
        gain, which = self._swap
        best_swaps(self.gains, self.order, self.q, gain, which)

        def exchanged(a: int, b: int) -> tuple[Order, Order]:
            k, e = divmod(int(which[a, b]), self.q)
            first, second = self._members(a).copy(), self._members(b).copy()
            first[k], second[e] = second[e], first[k]
            return first, second

        return self._move(gain, exchanged)

    def _exchange_pairs(self) -> bool:
        gain, which = self._pair
        pair_exchanges(self.blocks[0], self.order, self.n, self.values, self.stale, gain, which)
        self.stale[:] = False

        def exchanged(a: int, b: int) -> tuple[Order, Order]:
            i, j = divmod(int(which[a, b]), 6)
            first, second = self._members(a), self._members(b)
            return (
                np.concatenate([first[PAIRS[i]], second[PAIRS[j]]]),
                np.concatenate([first[PAIRS[5 - i]], second[PAIRS[5 - j]]]),
            )

        return self._move(gain, exchanged)

    def _move(self, gain: npt.NDArray[np.float32], exchanged: Exchanged) -> bool:
        """Make the moves that gain most, each stripe in one at most; whether there was one.

        A move that float64 does not confirm has its price set to 0.
        """
        a, b = np.nonzero(gain > _FLOOR * self.value / self.stripes)
        free = np.ones(self.stripes, bool)
        for i in np.argsort(-gain[a, b], kind="stable"):
            pair = int(a[i]), int(b[i])
            if not free[list(pair)].all():
                continue
            new = exchanged(*pair)
            kept = [self._keeps(members) for members in new]
            if sum(kept) <= self.values[list(pair)].sum():
                gain[pair] = 0.0
                continue
            for stripe, members in zip(pair, new, strict=True):
                self._members(stripe)[:] = members
            free[list(pair)] = False
        self._refresh(np.flatnonzero(~free))
        return not free.all()
