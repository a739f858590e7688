"""One output row of a layer as a binary quadratic: which of its weights to keep.

With dense (restored) weights w, target b = Cŵ and support x the row's reconstruction error is
``(x∘w)'H(x∘w) - 2 (x∘w)'b + const``: a quadratic in x that is exact, and whose off-diagonal terms
``w_i w_j H_ij`` have both signs (weights that cancel one another).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from optiprune.batches import select_batch
from optiprune.config import BatchOptions
from optiprune.curvature.layers import LayerError, PrunableLayer
from optiprune.problems import CardinalityQP

__all__ = ["check_pattern_mask", "flip_costs", "row_batch", "row_problem"]

Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]


def check_pattern_mask(layer: PrunableLayer, mask: Bools, pattern: tuple[int, int] | None) -> None:
    """Raise `LayerError` unless the mask, (rows, cols), keeps at most N in every M of a row."""
    if pattern is None:
        return
    n, m = pattern
    if layer.cols % m:
        raise LayerError(
            f"layer '{layer.name}' has {layer.cols} weights a row, which is no multiple of {m}: "
            f"pattern {n}:{m} does not fit; exclude the layer"
        )
    counts = mask.reshape(layer.rows, -1, m).sum(2)
    if (counts > n).any():
        row, group = np.argwhere(counts > n)[0]
        raise LayerError(
            f"layer '{layer.name}': the first mask keeps {counts[row, group]} of the {m} weights "
            f"of group {group} in row {row}, but the pattern is {n}:{m}"
        )


def flip_costs(H: Floats, b: Floats, w: Floats, mask: Bools) -> npt.NDArray[np.float64]:
    """Change of the row's error for flipping each weight alone, shape (cols,).

    H is (cols, cols), the others (cols,).
    """
    gradient = H @ np.where(mask, w, 0.0) - b
    step = np.where(mask, -w, w)
    return np.asarray(step * (2.0 * gradient + H.diagonal() * step))


def row_batch(
    cost: Floats,
    mask: Bools,
    visited: Bools,
    options: BatchOptions,
    pattern: tuple[int, int] | None,
    rng: np.random.Generator,
) -> Indices:
    """Positions of the weights of a row that are decided together, ascending; empty if none.

    All of them if they fit into ``options.size``; else the cheapest to lose of the kept ones and
    the best to restore of the pruned ones, those not yet ``visited`` in this sweep first. With a
    pattern, whole groups, those with the best single exchange first.
    """
    cols = cost.shape[0]
    if cols <= options.size:
        return np.arange(cols)
    if pattern is None:
        # a weight that was visited ranks behind all that were not
        behind = np.where(visited, 1.0 + np.ptp(cost), 0.0)
        heat = np.zeros(cols)
        return np.sort(select_batch(cost + behind, mask, heat, options, rng))
    m = pattern[1]
    by_group, kept = cost.reshape(-1, m), mask.reshape(-1, m)
    lose = np.where(kept, by_group, np.inf).min(1)
    gain = np.where(kept, np.inf, by_group).min(1)
    rank = lose + gain  # inf where a group has nothing to exchange
    open_groups = np.isfinite(rank)
    order = np.lexsort((rank, visited.reshape(-1, m).any(1), ~open_groups))
    groups = np.sort(order[: min(int(open_groups.sum()), max(1, options.size // m))])
    return (groups[:, None] * m + np.arange(m)).reshape(-1)


def row_problem(
    H: Floats,
    b: Floats,
    w: Floats,
    mask: Bools,
    index: Indices,
    pattern: tuple[int, int] | None,
) -> CardinalityQP:
    """The change of a row's error over the batch ``index``, all other weights as they are.

    Parameters
    ----------
    H : (cols, cols), symmetric; its dtype is that of the problem's matrix
    b, w : (cols,) target Cŵ and restored weights
    mask : (cols,) bool, the mask now; it gives the budgets and the offset: energy(mask[index]) = 0
    index : (n,) ascending; whole groups of M with a pattern

    Returns
    -------
    A `CardinalityQP` with one budget, or one for every group of the pattern.
    """
    x0 = mask[index]
    wb = w[index].astype(H.dtype)
    whole = index.size == mask.size
    sub = H if whole else H[np.ix_(index, index)]
    Q = sub * np.multiply.outer(wb, wb)
    linear = -2.0 * w[index] * b[index]
    if not whole:
        fixed = mask.copy()
        fixed[index] = False
        on = np.flatnonzero(fixed)
        linear += 2.0 * w[index] * (H[np.ix_(index, on)].astype(np.float64) @ w[on])
    s = np.flatnonzero(x0)
    now = float(Q[np.ix_(s, s)].sum(dtype=np.float64)) + float(linear[s].sum())
    if pattern is None:
        return CardinalityQP(Q, linear, -now, k=int(s.size))
    m = pattern[1]
    groups = np.repeat(np.arange(index.size // m), m)
    return CardinalityQP(Q, linear, -now, k=x0.reshape(-1, m).sum(1), groups=groups)
