"""What a kept weight costs in each layer: one parameter, its multiply-adds, or its bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from optiprune.curvature.layers import PrunableLayer

__all__ = ["BudgetKind", "LayerCost", "layer_costs", "spending_limit"]

BudgetKind = Literal["parameters", "flops", "bytes"]


@dataclass(frozen=True, slots=True)
class LayerCost:
    """Cost of a layer that keeps k of its weights: ``fixed + unit * k``.

    Attributes
    ----------
    name : of the layer
    size : its weights, n
    unit : cost of one kept weight, > 0
    fixed : cost however few are kept
    dense : cost of the unpruned layer
    """

    name: str
    size: int
    unit: float
    fixed: float
    dense: float

    def of(self, kept: int) -> float:
        return self.fixed + self.unit * kept


def layer_costs(
    kind: BudgetKind,
    layers: Sequence[PrunableLayer],
    *,
    positions: Mapping[str, float] | None = None,
    itemsize: Mapping[str, int] | None = None,
) -> list[LayerCost]:
    """The costs of the layers, in order.

    Parameters
    ----------
    kind : "parameters": a kept weight costs 1. "flops": the multiply-adds that it takes part in
        for one sample. "bytes": kept values in the dtype of the weight, one after the other, and a
        bit mask of the layer (ceil(n / 8) bytes, also of a layer kept whole); the dense layer has
        no mask.
    positions : layer name -> multiply-adds of one weight for a sample; for "flops"
    itemsize : layer name -> bytes of a weight; for "bytes"
    """
    out = []
    for layer in layers:
        n, unit, fixed = layer.numel, 1.0, 0.0
        if kind == "flops":
            assert positions is not None
            unit = float(positions[layer.name])
        elif kind == "bytes":
            assert itemsize is not None
            unit, fixed = float(itemsize[layer.name]), float(math.ceil(n / 8))
        out.append(LayerCost(layer.name, n, unit, fixed, unit * n))
    return out


def spending_limit(kind: BudgetKind, costs: Sequence[LayerCost], density: float) -> float:
    """What all layers together may cost: ``density`` times the dense cost, a whole number.

    Parameters are rounded to the nearest as everywhere, multiply-adds and bytes down.
    """
    total = math.fsum(c.dense for c in costs)
    if kind == "parameters":
        return float(round(density * total))
    # (1 - 0.9) * 10 is 0.9999999999999998 in floating point, and is meant as 1
    return float(math.floor(density * total * (1.0 + 1e-12)))
