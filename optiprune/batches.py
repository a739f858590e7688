"""Which weights are decided together: kept ones cheap to lose, pruned ones worth restoring.

A batch is chosen by the quadratic's own marginal costs: setting weight i to zero costs
``-g_i v_i + 1/2 H_ii v_i^2``, restoring it costs ``g_i w_i + 1/2 H_ii w_i^2``. Weights that were in
recent batches are pushed back (soft tabu), seeded Gumbel noise diversifies, and part of the batch
can be filled with the partners that correlate best with the rest.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from .config import BatchOptions

__all__ = ["marginal_costs", "select_batch"]

Floats = npt.NDArray[np.floating]
Indices = npt.NDArray[np.int64]


def marginal_costs(
    gradient: Floats, diagonal: Floats, w: Floats, kept: npt.NDArray[np.bool_], ridge: float
) -> Floats:
    """Change of the quadratic for flipping each weight alone, shape (P,).

    ``w`` holds the value that each weight has when kept.
    """
    step = np.where(kept, -w, w)
    return gradient * step + 0.5 * (diagonal + ridge) * step * step


def select_batch(
    cost: Floats,
    kept: npt.NDArray[np.bool_],
    heat: Floats,
    options: BatchOptions,
    rng: np.random.Generator,
    *,
    partners: Callable[[Indices, Indices], Floats] | None = None,
) -> Indices:
    """Positions of the weights in the next batch, kept ones first, without repetition.

    Parameters
    ----------
    cost : (P,) marginal cost of flipping each weight
    kept : (P,) current mask
    heat : (P,) in [0, 1], how recently each weight was in a batch
    options : sizes, noise and tabu
    partners : (chosen, pool) -> correlation strength of each weight of the pool with the chosen
        ones, shape (len(pool),); needed when ``options.partners > 0``

    Either side is short when there are not enough weights of its kind; an empty side gives an
    empty batch (there is nothing to exchange).
    """
    total = min(options.size, cost.shape[0])
    n_kept = min(round(options.kept * total), int(np.count_nonzero(kept)))
    n_pruned = min(total - n_kept, int(kept.shape[0] - np.count_nonzero(kept)))
    n_kept = min(n_kept, max(n_pruned, total - n_pruned))
    if n_kept == 0 or n_pruned == 0:
        return np.zeros(0, dtype=np.int64)
    sides = []
    for side, count in ((kept, n_kept), (~kept, n_pruned)):
        sides.append(_rank_side(np.flatnonzero(side), cost, heat, count, options, rng, partners))
    return np.concatenate(sides)


def _rank_side(
    candidates: Indices,
    cost: Floats,
    heat: Floats,
    count: int,
    options: BatchOptions,
    rng: np.random.Generator,
    partners: Callable[[Indices, Indices], Floats] | None,
) -> Indices:
    """The ``count`` best candidates of one side, cheapest first."""
    if count >= candidates.size:
        return candidates
    score = cost[candidates]
    # a pool of the cheapest; its spread is the unit of noise and tabu
    pool_size = min(candidates.size, 4 * count)
    pool = np.argpartition(score, pool_size - 1)[:pool_size]
    value = score[pool].astype(np.float64)
    spread = float(np.quantile(value, 0.75) - value.min()) or 1.0
    value = value + options.tabu * spread * heat[candidates[pool]]
    if options.noise > 0:
        value -= options.noise * spread * rng.gumbel(size=value.shape)
    n_partners = int(options.partners * count) if partners is not None else 0
    order = np.argsort(value, kind="stable")
    chosen = candidates[pool[order[: count - n_partners]]]
    if n_partners == 0 or partners is None:
        return chosen
    rest = candidates[pool[order[count - n_partners :]]]
    strength = partners(chosen, rest)
    best = np.argsort(-strength, kind="stable")[:n_partners]
    return np.concatenate([chosen, rest[best]])
