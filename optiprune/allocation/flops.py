"""Multiply-adds of each layer for one sample, counted while the model runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from optiprune.curvature.capture import require_run
from optiprune.curvature.data import CalibrationSet
from optiprune.curvature.layers import PrunableLayer
from optiprune.curvature.runner import run_model, untouched

__all__ = ["multiply_adds_per_weight"]


def multiply_adds_per_weight(
    model: nn.Module,
    layers: Sequence[PrunableLayer],
    weights: Mapping[str, Tensor],
    data: CalibrationSet,
) -> dict[str, float]:
    """How many multiply-adds each weight of a layer takes part in, for the first sample of data.

    Linear: one for every position (all leading dimensions of the output). Conv2d: one for every
    output pixel, padding counted as if it were input. Every call of a module, and every module that
    shares the weight, adds up; times the number of weights this is the layer's multiply-adds, and
    times the number of kept ones those of the pruned layer. Biases are not counted.

    Returns
    -------
    layer name -> multiply-adds of one weight. The model is as it was.

    Raises
    ------
    CalibrationError
        A layer that does not run on this sample, or whose output is empty.
    """
    found: dict[str, float] = {}
    batch = next(iter(data.batches(1)))

    def count(layer: PrunableLayer, output: object) -> None:
        if isinstance(output, Tensor):
            positions = output.numel() // layer.rows
            if positions:
                found[layer.name] = found.get(layer.name, 0.0) + positions / max(1, batch.n)

    handles = [
        module.register_forward_hook(lambda _m, _i, output, layer=layer: count(layer, output))
        for layer in layers
        for module in layer.modules
    ]
    try:
        with torch.no_grad(), untouched(model):
            run_model(model, weights, batch.inputs)
    finally:
        for handle in handles:
            handle.remove()
    require_run(layers, found)
    return found
