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
    leaves : parameter name -> weights that ask for gradients; they are moved in place
    kept : bool masks of the same shapes; what they prune has no gradient and stays
    rate : first step, in units of the root mean square of a layer's kept weights
    steps : over which the rate falls to 0
    """

    def __init__(
        self, leaves: Mapping[str, Tensor], kept: Mapping[str, Tensor], rate: float, steps: int
    ) -> None:
        self._leaves, self._kept = leaves, kept
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
        return {k: leaf * self._kept[k] for k, leaf in self._leaves.items()}

    def add(self, summed: Tensor) -> None:
        """Take the gradient of a sum over some terms, made with `weights`."""
        # not backward(): the model's other parameters would get gradients too
        grads = torch.autograd.grad(summed, list(self._leaves.values()), allow_unused=True)
        # in place, here and below: one more copy of a large model is gigabytes
        for i, g in enumerate(grads):
            own = self._sums[i]
            if own is None:
                self._sums[i] = g
            elif g is not None:
                own.add_(g)

    def step(self, terms: int) -> None:
        """Move along the mean over the terms that were added."""
        for leaf, g in zip(self._leaves.values(), self._sums, strict=True):
            leaf.grad = None if g is None else g.div_(terms)
        self._sums = [None] * len(self._sums)
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        self._schedule.step()
