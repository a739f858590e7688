"""All weights of the layers as one vector, and budgets over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from optiprune.curvature import PrunableLayer

__all__ = ["FlatWeights", "falling_counts", "keep_largest"]


@dataclass(frozen=True, slots=True, eq=False)
class FlatWeights:
    """The weights of the layers, one layer after the other, row by row.

    Attributes
    ----------
    layers : in the order of the vector
    parameters : parameter name -> the model's own tensor (not written to)
    dense : (p,) float32 on the CPU, a copy of the weights
    """

    layers: tuple[PrunableLayer, ...]
    parameters: dict[str, Tensor]
    dense: Tensor

    @classmethod
    def of(cls, model: nn.Module, layers: Sequence[PrunableLayer]) -> FlatWeights:
        named = dict(model.named_parameters())
        own = {layer.parameter: named[layer.parameter].detach() for layer in layers}
        flat = [t.reshape(-1).to("cpu", torch.float32) for t in own.values()]
        return cls(tuple(layers), own, torch.cat(flat).clone())

    @property
    def p(self) -> int:
        return self.dense.numel()

    def count(self, density: float) -> int:
        """How many weights a density keeps."""
        return round(density * self.p)

    def join(self, by_layer: dict[str, Tensor]) -> Tensor:
        """Layer name -> tensor, as one vector (p,) float32 on the CPU."""
        parts = [by_layer[layer.name].reshape(-1).to("cpu", torch.float32) for layer in self.layers]
        return torch.cat(parts)

    def spans(self) -> list[slice]:
        """The part of the vector that each layer has."""
        out, start = [], 0
        for layer in self.layers:
            out.append(slice(start, start + layer.numel))
            start += layer.numel
        return out

    def weights(self, flat: Tensor) -> dict[str, Tensor]:
        """Parameter name -> ``flat``'s part in its shape, dtype and device."""
        out = {}
        for layer, span in zip(self.layers, self.spans(), strict=True):
            own = self.parameters[layer.parameter]
            out[layer.parameter] = flat[span].reshape(layer.shape).to(own.device, own.dtype)
        return out

    def pruned(
        self, mask: Tensor, flat: Tensor | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(masks, values) of `model_method.PrunedWeights`, from (p,) bool and (p,) weights.

        Without weights the kept ones have their dense values, to the last bit.
        """
        masks, values = {}, {}
        given = self.parameters if flat is None else self.weights(flat)
        for layer, span in zip(self.layers, self.spans(), strict=True):
            own = given[layer.parameter]
            keep = mask[span].reshape(layer.shape).to(own.device)
            masks[layer.parameter] = keep
            values[layer.parameter] = torch.where(keep, own, torch.zeros_like(own))
        return masks, values


def keep_largest(score: Tensor, k: int) -> Tensor:
    """Mask of the k highest scores, (p,) bool; ties go to the lower position."""
    mask = torch.zeros(score.shape[0], dtype=torch.bool)
    mask[torch.argsort(score, descending=True, stable=True)[:k]] = True
    return mask


def falling_counts(p: int, k: int, stages: int) -> list[int]:
    """How many weights to keep after each of the stages: geometric from p to k, k last.

    The density falls by one factor a stage, as in the multi-stage procedure of Benbaki et al. 2023
    (CHITA++, arXiv 2302.14623). Linear if nothing is to be kept.
    """
    if k == 0 or p == 0:
        return [round(p * (1 - t / stages)) for t in range(1, stages + 1)]
    return [round(p * (k / p) ** (t / stages)) for t in range(1, stages)] + [k]
