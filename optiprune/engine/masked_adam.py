"""Adam over the kept weights of some layers, with steps in units of each layer's own scale."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["MaskedAdam"]


class MaskedAdam:
    """Gradients are summed up over the parts of a step; a cosine takes the steps to 0.

    Parameters
    ----------
    leaves : parameter name -> weights that ask for gradients, 0 where pruned; moved in place
    kept : bool masks of the same shapes and names; what they prune has no gradient and stays 0
    rate : first step, in units of the root mean square of a layer's kept weights
    steps : over which the rate falls to 0
    """

    def __init__(
        self, leaves: Mapping[str, Tensor], kept: Mapping[str, Tensor], rate: float, steps: int
    ) -> None:
        self._leaves = leaves
        self._kept = {key: kept[key] for key in leaves}
        self._sums: list[Tensor | None] = [None] * len(leaves)
        groups = []
        for key, leaf in leaves.items():
            count = max(1.0, float(kept[key].sum()))
            scale = math.sqrt(float(leaf.detach().double().square().sum()) / count)
            groups.append({"params": [leaf], "lr": rate * scale})
        self._adam = torch.optim.Adam(groups, lr=rate)
        total = max(1, steps)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._adam, lambda step: 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / total)))
        )

    def weights(self) -> dict[str, Tensor]:
        """The masked weights, to run a model with."""
        return dict(self._leaves)

    def add(self, summed: Tensor) -> None:
        """Take the gradient of a sum over some terms, made with `weights`."""
        # not backward(): the model's other parameters would get gradients too
        found = torch.autograd.grad(summed, list(self._leaves.values()), allow_unused=True)
        grads: list[Tensor | None] = list(found)
        del found
        # one layer after the other, each freed: a copy of a large model is gigabytes
        for i, kept in enumerate(self._kept.values()):
            g, grads[i] = grads[i], None
            if g is None:
                continue
            own = self._sums[i]
            if own is None:
                self._sums[i] = g * kept
            else:
                own.add_(g * kept)

    def step(self, terms: int) -> None:
        """Move along the mean over the terms that were added."""
        for leaf, g in zip(self._leaves.values(), self._sums, strict=True):
            leaf.grad = None if g is None else g.div_(terms)
        self._sums = [None] * len(self._sums)
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        self._schedule.step()
