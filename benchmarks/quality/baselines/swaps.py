"""SparseSwaps: the best exchange of a kept and a pruned weight, row by row, until none helps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numba
import numpy as np
import torch
from torch import Tensor

from .method import BaselineError, LayerBudget, LayerMethod, Scope, checked_weight
from .moments import LayerMoments
from .wanda import Wanda

__all__ = ["SparseSwaps", "refine", "refine_on_device"]

# of the row's output energy: a smaller gain is rounding
_ROUNDING = 1e-12
# elements of one batch of exchanges: 256 MiB in float64
_BATCH = 1 << 25


@dataclass(frozen=True)
class SparseSwaps:
    """Exact 1-swaps on the Gram matrix.

    With d the pruned weights of a row (0 where kept) its error is ``d'Hd``. Pruning the kept u and
    restoring the pruned v changes it by

        2 w_u c_u + w_u^2 H_uu - 2 w_v c_v + w_v^2 H_vv - 2 w_u w_v H_uv,      c = Hd,

    and the best pair of all is taken, again and again; for N:M both are of one group of M. Row
    counts of the start stay.

    Zimmer, Roux, Wagner, Hendrych and Pokutta 2025, "SparseSwaps: tractable LLM pruning mask
    refinement at scale", arXiv:2512.10922.

    Attributes
    ----------
    start : gives the first mask
    max_swaps : a row, or None: until no exchange lowers the error
    """

    start: LayerMethod = field(default_factory=Wanda)
    max_swaps: int | None = None

    name: ClassVar[str] = "1-swaps"
    moves_weights: ClassVar[bool] = False
    paper_scope: ClassVar[Scope] = "row"
    reference: ClassVar[str] = "Zimmer et al. 2025, arXiv:2512.10922"

    def __post_init__(self) -> None:
        if self.start.moves_weights:
            raise BaselineError(
                f"start must leave the weights as they are, {self.start.name!r} moves them"
            )
        if self.max_swaps is not None and self.max_swaps < 0:
            raise BaselineError(f"max_swaps must be >= 0 or None, got {self.max_swaps!r}")

    def prune(
        self, moments: LayerMoments, weight: Tensor, budget: LayerBudget
    ) -> tuple[Tensor, Tensor]:
        weight = checked_weight(moments, weight, budget)
        mask, _ = self.start.prune(moments, weight, budget)
        m = moments.cols if budget.pattern is None else budget.pattern[1]
        run = refine if weight.device.type == "cpu" else refine_on_device
        mask = run(moments.H, weight, mask, m, self.max_swaps)
        return mask, torch.where(mask, weight, 0.0)


def refine(H: Tensor, weight: Tensor, mask: Tensor, m: int, max_swaps: int | None = None) -> Tensor:
    """The mask after the exchanges, (rows, cols) bool, on the CPU.

    Parameters
    ----------
    H : (groups, cols, cols) float64; row r uses group ``r // (rows // groups)``
    weight, mask : (rows, cols)
    m : exchanges stay within m consecutive weights; it divides cols
    """
    out = mask.numpy().copy()
    most = np.iinfo(np.int64).max if max_swaps is None else max_swaps
    w = np.ascontiguousarray(weight.numpy())
    _refine_rows(np.ascontiguousarray(H.numpy()), w, out, m, most, _ROUNDING)
    return torch.from_numpy(out)


@numba.njit(cache=True, nogil=True)
def _refine_rows(H: Any, weight: Any, mask: Any, m: int, most: int, rounding: float) -> None:
    rows, cols = weight.shape
    c = np.empty(cols)
    add = np.empty(cols)
    take = np.empty(cols)
    pruned = np.empty(cols, dtype=np.int64)
    for r in range(rows):
        G = H[r // (rows // H.shape[0])]
        w = weight[r]
        kept = mask[r]
        c[:] = 0.0
        for j in range(cols):
            if not kept[j]:
                c += w[j] * G[j]
        energy = 0.0
        for i in range(cols):
            energy += w[i] * np.dot(G[i], w)
        swaps = 0
        while swaps < most:
            best, best_u, best_v = -rounding * energy, -1, -1
            for j in range(cols):
                own = w[j] * w[j] * G[j, j]
                add[j] = own + 2.0 * w[j] * c[j]
                take[j] = own - 2.0 * w[j] * c[j]
            for start in range(0, cols, m):
                n = 0
                for j in range(start, start + m):
                    if not kept[j]:
                        pruned[n] = j
                        n += 1
                for u in range(start, start + m):
                    if not kept[u]:
                        continue
                    twice = 2.0 * w[u]
                    for i in range(n):
                        v = pruned[i]
                        change = add[u] + take[v] - twice * w[v] * G[u, v]
                        if change < best:
                            best, best_u, best_v = change, u, v
            if best_u < 0:
                break
            kept[best_u] = False
            kept[best_v] = True
            c += w[best_u] * G[best_u] - w[best_v] * G[best_v]
            swaps += 1


def refine_on_device(
    H: Tensor, weight: Tensor, mask: Tensor, m: int, max_swaps: int | None = None
) -> Tensor:
    """`refine` in tensor operations, many rows at once, on the device of its arguments."""
    groups, cols = H.shape[0], H.shape[-1]
    rows = weight.shape[0]
    blocks = cols // m
    out = mask.clone()
    if not mask.numel():
        return out
    group = torch.arange(rows, device=H.device) // (rows // groups)
    # (groups, blocks, m, m): the parts of H that exchanges see
    near = H.reshape(groups, blocks, m, blocks, m).diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
    own = weight.square() * H.diagonal(dim1=1, dim2=2)[group]
    per_group = weight.reshape(groups, -1, cols)
    enough = _ROUNDING * ((per_group @ H) * per_group).sum(-1).reshape(-1)
    pruned = torch.where(mask, 0.0, weight)
    c = (pruned.reshape(groups, -1, cols) @ H).reshape(rows, cols)
    size = max(1, _BATCH // (cols * m))
    for piece in torch.arange(rows, device=H.device).split(size):
        left = piece
        swaps = 0
        while left.numel() and (max_swaps is None or swaps < max_swaps):
            w, kept, g = weight[left], out[left], group[left]
            slope = 2.0 * w * c[left]
            add = torch.where(kept, own[left] + slope, torch.inf).reshape(-1, blocks, m, 1)
            take = torch.where(kept, torch.inf, own[left] - slope).reshape(-1, blocks, 1, m)
            cross = w.reshape(-1, blocks, m, 1) * w.reshape(-1, blocks, 1, m) * near[g]
            change, at = (add + take - 2.0 * cross).reshape(len(left), -1).min(1)
            better = change < -enough[left]
            left, at, g = left[better], at[better], g[better]
            first = at // (m * m) * m
            u, v = first + at % (m * m) // m, first + at % m
            out[left, u], out[left, v] = False, True
            c[left] += weight[left, u, None] * H[g, u] - weight[left, v, None] * H[g, v]
            swaps += 1
    return out
