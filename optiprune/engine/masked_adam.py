"""Adam over the kept weights of some layers, with steps in units of each layer's own scale."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["TUNED_COPIES", "MaskedAdam"]

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
TUNED_COPIES = 5
"""Of the weights while they are tuned: leaves, gradients, two moments, and the best so far."""


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

    @property
    def steps(self) -> int:
        """That were taken."""
        return int(self._schedule.last_epoch)

    def state(self) -> dict[str, Tensor]:
        """Adam's moments, for `load`."""
        out = {}
        for key, leaf in self._leaves.items():
            for name, value in self._adam.state.get(leaf, {}).items():
                out[f"{name}/{key}"] = value
        return out

    def load(self, state: Mapping[str, Tensor], steps: int) -> None:
        """Go on after so many steps, with the moments of then; the leaves are the caller's."""
        for key, leaf in self._leaves.items():
            found = {name: state.get(f"{name}/{key}") for name in _MOMENTS}
            if all(v is not None for v in found.values()):
                # the count stays on the CPU, as Adam has it
                self._adam.state[leaf] = {
                    name: v.clone() if name == "step" else v.to(leaf.device, copy=True)
                    for name, v in found.items()
                    if v is not None
                }
        self._schedule.last_epoch = steps
        rates = zip(self._adam.param_groups, self._schedule.base_lrs, strict=True)
        for group, rate in rates:
            group["lr"] = rate * self._schedule.lr_lambdas[0](steps)

    def add(self, summed: Tensor) -> None:
        """Take the gradient of a sum over some terms, made with `weights`."""
        # into the leaves' own gradients, one copy of the model and no other; the model's parameters
        # get none
        torch.autograd.backward(summed, inputs=list(self._leaves.values()))
        # the sum of two weights hands both one tensor, and what follows is done in place
        seen: set[int] = set()
        for leaf in self._leaves.values():
            if leaf.grad is not None:
                place = leaf.grad.untyped_storage().data_ptr()
                if place in seen:
                    leaf.grad = leaf.grad.clone()
                seen.add(place)

    def step(self, terms: int) -> None:
        """Move along the mean over the terms that were added."""
        for key, leaf in self._leaves.items():
            if leaf.grad is not None:
                leaf.grad.mul_(self._kept[key]).div_(terms)
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        self._schedule.step()
