"""Which weights are decided together: kept ones cheap to lose, pruned ones worth restoring.

A batch is chosen by the quadratic's own marginal costs: setting weight i to zero costs
``-g_i v_i + 1/2 H_ii v_i^2``, restoring it costs ``g_i w_i + 1/2 H_ii w_i^2``. A weight is
exchanged for one of its own budget only, so with several budgets it is ranked by the exchange that
it can take part in, and the second side of the batch comes from the budgets of the first. Weights
that were in recent batches are pushed back (soft tabu), seeded Gumbel noise diversifies, and part
of the batch can be filled with the partners that correlate best with the rest.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from .config import BatchOptions

__all__ = ["exchange_costs", "marginal_costs", "select_batch"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating]
Indices = npt.NDArray[np.int64]
Partners = Callable[[Indices, Indices], Floats]


def marginal_costs(
    gradient: Floats, diagonal: Floats, w: Floats, kept: Bools, ridge: float
) -> Floats:
    """Change of the quadratic for flipping each weight alone, shape (P,).

    ``w`` holds the value that each weight has when kept.
    """
    step = np.where(kept, -w, w)
    return gradient * step + 0.5 * (diagonal + ridge) * step * step


def exchange_costs(cost: Floats, kept: Bools, groups: Indices) -> Floats:
    """Cost of exchanging each weight for one of its budget, float64, shape (P,).

    The cheapest kept weight of a budget is paired with its cheapest pruned one, the second with the
    second; where one side is longer, the rest is paired with the other side's last. A budget that
    keeps all or none of its weights has nothing to exchange: inf.

    Parameters
    ----------
    cost : (P,) marginal cost of flipping each weight
    kept : (P,) current mask
    groups : (P,) budget of each weight, integers >= 0
    """
    order = np.lexsort((cost, kept, groups))
    side = 2 * groups[order] + kept[order]
    sizes = np.bincount(side, minlength=2 * int(groups.max(initial=0)) + 2)
    starts = np.cumsum(sizes) - sizes
    other = side ^ 1
    rank = np.minimum(np.arange(order.size) - starts[side], sizes[other] - 1)
    partner = np.minimum(starts[other] + np.maximum(rank, 0), order.size - 1)
    sorted_cost = cost[order].astype(np.float64)
    out = np.empty(order.size)
    out[order] = np.where(rank < 0, np.inf, sorted_cost + sorted_cost[partner])
    return out


def select_batch(
    cost: Floats,
    kept: Bools,
    heat: Floats,
    options: BatchOptions,
    rng: np.random.Generator,
    *,
    groups: Indices | None = None,
    partners: Partners | None = None,
) -> Indices:
    """Positions of the weights in the next batch, without repetition.

    Parameters
    ----------
    cost : (P,) marginal cost of flipping each weight
    kept : (P,) current mask
    heat : (P,) in [0, 1], how recently each weight was in a batch
    options : sizes, noise and tabu
    groups : (P,) budget of each weight, integers >= 0; None for one budget over all
    partners : (chosen, pool) -> correlation strength of each weight of the pool with the chosen
        ones, shape (len(pool),); needed when ``options.partners > 0``

    The batch is smaller when there are not enough weights that can be exchanged, and empty when
    there are none.
    """
    one = groups is None or not groups.size or bool((groups == groups[0]).all())
    budget = np.zeros(cost.shape[0], dtype=np.int64) if one or groups is None else groups
    if not one:
        cost = exchange_costs(cost, kept, budget)
        sides = [np.flatnonzero(side & np.isfinite(cost)) for side in (kept, ~kept)]
    else:
        sides = [np.flatnonzero(kept), np.flatnonzero(~kept)]
    total = min(options.size, cost.shape[0])
    n_kept = min(max(1, round(options.kept * total)), total - 1, sides[0].size)
    n_pruned = min(total - n_kept, sides[1].size)
    if n_kept <= 0 or n_pruned == 0:
        return np.zeros(0, dtype=np.int64)
    # the smaller side picks the budgets, so that the other can answer in every one of them
    (first, n_first), (second, n_second) = sorted(
        zip(sides, (n_kept, n_pruned), strict=True), key=lambda side: side[1]
    )
    rank = _Ranking(cost, heat, options, rng, partners)
    leaders = rank.best(first, np.zeros(first.size, dtype=np.int64), np.array([n_first]), n_first)
    quota = np.bincount(budget[leaders], minlength=int(budget.max()) + 1) * n_second // n_first
    second = second[quota[budget[second]] > 0]
    return np.concatenate([leaders, rank.best(second, budget[second], quota, n_second)])


class _Ranking:
    """The cheapest of some candidates, under noise, tabu and partners."""

    def __init__(
        self,
        cost: Floats,
        heat: Floats,
        options: BatchOptions,
        rng: np.random.Generator,
        partners: Partners | None,
    ) -> None:
        self.cost, self.heat, self.options, self.rng = cost, heat, options, rng
        self.partners = partners if options.partners > 0 else None

    def best(
        self, candidates: Indices, budget: Indices, quota: npt.NDArray[np.int64], count: int
    ) -> Indices:
        """At most ``count`` candidates, ``quota[budget]`` of each budget before any more."""
        if count >= candidates.size:
            return candidates
        # a pool of the cheapest; its spread is the unit of noise and tabu
        pool = _cheapest(self.cost[candidates], budget, 4 * quota)
        candidates, budget = candidates[pool], budget[pool]
        value = self.cost[candidates].astype(np.float64)
        spread = float(np.quantile(value, 0.75) - value.min()) or 1.0
        value += self.options.tabu * spread * self.heat[candidates]
        if self.options.noise > 0:
            value -= self.options.noise * spread * self.rng.gumbel(size=value.shape)
        rank = _rank_within(value, budget)
        # one of every budget first: what stands alone in its budget cannot be exchanged
        order = np.lexsort((value, rank >= quota[budget], rank > 0))
        if self.partners is None:
            return candidates[order[:count]]
        n_partners = int(self.options.partners * count)
        chosen, rest = (
            candidates[order[: count - n_partners]],
            candidates[order[count - n_partners :]],
        )
        best = np.argsort(-self.partners(chosen, rest), kind="stable")[:n_partners]
        return np.concatenate([chosen, rest[best]])


def _cheapest(cost: Floats, budget: Indices, limit: npt.NDArray[np.int64]) -> Indices:
    """Positions of the ``limit[g]`` cheapest of each budget g."""
    if limit.size == 1 and limit[0] < cost.size:  # in linear time
        return np.argpartition(cost, int(limit[0]) - 1)[: int(limit[0])]
    return np.flatnonzero(_rank_within(cost, budget) < limit[budget])


def _rank_within(value: Floats, budget: Indices) -> npt.NDArray[np.int64]:
    """Rank of each value among those of its budget, from 0."""
    order = np.lexsort((value, budget))
    sizes = np.bincount(budget)
    rank = np.empty(value.shape[0], dtype=np.int64)
    rank[order] = np.arange(value.shape[0]) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return rank
