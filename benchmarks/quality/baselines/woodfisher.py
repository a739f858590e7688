"""WoodFisher: optimal brain surgeon with the inverse of the block-wise empirical Fisher matrix."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from optiprune.curvature import CalibrationSet, PrunableLayer
from optiprune.curvature.losses import LossFunction

from .flat import FlatWeights, falling_counts, keep_largest
from .loss_gradients import loss_gradients, require_room
from .model_method import PrunedWeights, check_call

__all__ = ["FisherBlock", "WoodFisher"]


class FisherBlock:
    """The inverse of ``F = damping I + (1/n) sum_i g_i g_i'`` for the weights of a block.

    WoodFisher adds the gradients one at a time by the Sherman-Morrison formula,

        F_{i+1}^-1 = F_i^-1 - F_i^-1 g g' F_i^-1 / (n + g' F_i^-1 g),      F_0 = damping I.

    All at once this is Woodbury's identity, ``(I - G'(n damping I + G G')^-1 G) / damping``, which
    needs an n x n system in place of a b x b matrix: the same numbers, cheaper where b > n.

    Parameters
    ----------
    columns : (b, n), G': the gradients of n samples; its dtype is that of the large products
    damping : > 0
    """

    def __init__(self, columns: Tensor, damping: float) -> None:
        self._damping = damping
        self._columns = columns
        kernel = (columns.T @ columns).double()
        kernel.diagonal().add_(columns.shape[1] * damping)
        self._factor = torch.linalg.cholesky(kernel)

    def diagonal(self) -> Tensor:
        """``[F^-1]_qq``, (b,) float64."""
        # |L^-1 g|^2 is what a weight's own gradients take from its diagonal
        factor = self._factor.to(self._columns.dtype)
        half = torch.linalg.solve_triangular(factor, self._columns.T, upper=False)
        taken = half.square().sum(0, dtype=torch.float64)
        # F_qq is an upper bound of 1 / [F^-1]_qq, whatever rounding makes of the difference
        own = self._columns.square().sum(1, dtype=torch.float64) / self._columns.shape[1]
        return torch.maximum((1.0 - taken) / self._damping, 1.0 / (self._damping + own))

    def product(self, v: Tensor) -> Tensor:
        """``F^-1 v`` for v (b,), float64."""
        inner = (self._columns.T @ v.to(self._columns.dtype)).double()
        pulled = torch.cholesky_solve(inner[:, None], self._factor)[:, 0]
        taken = self._columns @ pulled.to(self._columns.dtype)
        return (v.double() - taken.double()) / self._damping


@dataclass(frozen=True)
class WoodFisher:
    """Prune by ``w_q^2 / (2 [F^-1]_qq)`` and move the other weights by optimal brain surgeon.

    Scores are compared over all layers. Weights are taken as independent of one another, as in the
    paper: those pruned in a stage each ask for ``-w_q [F^-1]_{:,q} / [F^-1]_qq`` of their block,
    and the sum of it is what the block moves by. Each stage takes the gradients anew at the weights
    that the last one left; pruned weights stay pruned. Singh and Alistarh, "WoodFisher: efficient
    second-order approximation for neural network compression", NeurIPS 2020, arXiv 2004.14340.

    Attributes
    ----------
    stages : 1 is the paper's one-shot pruning; density falls geometrically
    samples : n
    block : weights in a block of F, consecutive weights of one layer
    damping : lambda, > 0; 1e-5 in the paper
    """

    name: str = "woodfisher"
    stages: int = 5
    samples: int = 300
    block: int = 1000
    damping: float = 1e-5
    moves_weights: bool = True
    reference: str = "Singh and Alistarh, NeurIPS 2020, arXiv 2004.14340"

    def prune(
        self,
        model: nn.Module,
        layers: Sequence[PrunableLayer],
        data: CalibrationSet,
        *,
        density: float,
        loss: LossFunction,
        seed: np.random.SeedSequence,
        seconds: float | None = None,
    ) -> PrunedWeights:
        """As `ModelMethod.prune`. When ``seconds`` are over, the last stage is taken at once."""
        check_call(layers, density, seconds)
        if not 0 < self.damping < float("inf"):
            raise ValueError(f"damping must be a finite number above 0, got {self.damping!r}")
        for option in ("stages", "samples", "block"):
            if getattr(self, option) < 1:
                raise ValueError(f"{option} must be at least 1, got {getattr(self, option)}")
        began = time.perf_counter()
        require_room(sum(layer.numel for layer in layers), data, self.samples)
        flat = FlatWeights.of(model, layers)
        w = flat.dense.double()
        mask = torch.ones(flat.p, dtype=torch.bool)
        memory: Tensor | None = None
        counts = falling_counts(flat.p, flat.count(density), self.stages)
        for stage, (k, own) in enumerate(zip(counts, seed.spawn(self.stages), strict=True)):
            late = seconds is not None and time.perf_counter() - began >= seconds
            if late and stage < self.stages - 1:
                continue
            gradients = loss_gradients(
                model, flat, w, data, loss, own, samples=self.samples, out=memory
            )
            memory = gradients.columns
            w, mask = self.stage(flat, w, mask, memory, k)
        return flat.pruned(mask, w)

    def stage(
        self, flat: FlatWeights, w: Tensor, mask: Tensor, columns: Tensor, k: int
    ) -> tuple[Tensor, Tensor]:
        """Weights (p,) float64 and mask (p,) with k kept, of those that ``mask`` keeps.

        Weights pruned before take no part in F, and get no step.
        """
        inverse = torch.empty(flat.p, dtype=torch.float64)
        blocks = [
            part[mask[part]]
            for span in flat.spans()
            for part in torch.arange(span.start, span.stop).split(self.block)
        ]
        blocks = [kept for kept in blocks if kept.numel()]
        for kept in blocks:
            inverse[kept] = FisherBlock(columns[kept], self.damping).diagonal()
        score = torch.where(mask, w.square() / (2.0 * inverse), -torch.inf)
        after = keep_largest(score, k) & mask
        out = w.clone()
        for kept in blocks:
            pruned = ~after[kept]
            if not bool(pruned.any()) or bool(pruned.all()):
                continue
            asked = torch.where(pruned, -w[kept] / inverse[kept], 0.0)
            out[kept] += FisherBlock(columns[kept], self.damping).product(asked)
        out[~after] = 0.0
        return out, after
