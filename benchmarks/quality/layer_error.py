"""How far the outputs of pruned layers are from the dense ones, on inputs no method has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from optiprune.curvature import CalibrationSet, PrunableLayer
from optiprune.curvature.runner import run_model, untouched

__all__ = ["LayerErrors", "layer_errors"]


@dataclass(frozen=True, slots=True)
class LayerErrors:
    """Squared error of every layer's output, and the energy of the dense output.

    Attributes
    ----------
    error : layer name -> ``||X_p W' - X_d Ŵ'||^2`` summed over all positions and rows; X_p, X_d the
        inputs in the pruned and in the dense model
    energy : layer name -> ``||X_d Ŵ'||^2``, without the bias
    """

    error: dict[str, float]
    energy: dict[str, float]

    @property
    def total(self) -> float:
        """The errors of all layers over the energies of all; 1 is what an empty model has."""
        energy = sum(self.energy.values())
        return sum(self.error.values()) / energy if energy > 0 else 0.0

    def relative(self) -> dict[str, float]:
        """Each layer's error over its energy (0 for a layer whose dense output is always 0)."""
        return {n: e / self.energy[n] if self.energy[n] > 0 else 0.0 for n, e in self.error.items()}


def layer_errors(
    model: nn.Module,
    dense: nn.Module,
    layers: Sequence[PrunableLayer],
    data: CalibrationSet,
    chunk: int,
) -> LayerErrors:
    """Compare the outputs of the layers of two models, call by call.

    The same numbers as ``w'Hw - 2w'Cŵ + ŵ'Dŵ`` of the layer's Gram matrices
    (`optiprune.curvature.gram.LayerGram.error`, times positions), from outputs alone: that needs no
    matrix a layer, which for a language model would be gigabytes. Sums are float64.

    Parameters
    ----------
    model, dense : of one architecture; ``layers`` are found in both by name
    chunk : samples at once; the outputs of all layers for so many are held
    """
    error = {layer.name: 0.0 for layer in layers}
    energy = {layer.name: 0.0 for layer in layers}
    kept: dict[tuple[str, int], Tensor] = {}

    def remember(layer: PrunableLayer, key: tuple[str, int], module: nn.Module, y: Tensor) -> None:
        kept[key] = y
        bias = module.bias
        if isinstance(bias, Tensor):
            y = y - (bias.view(-1, 1, 1) if isinstance(module, nn.Conv2d) else bias)
        energy[layer.name] += _squares(y)

    def compare(layer: PrunableLayer, key: tuple[str, int], module: nn.Module, y: Tensor) -> None:
        if key not in kept or kept[key].shape != y.shape:
            raise ValueError(f"layer '{key[0]}' runs otherwise in the pruned model (call {key[1]})")
        error[layer.name] += _squares(y - kept.pop(key))

    with torch.no_grad(), untouched(model), untouched(dense):
        for batch in data.batches(chunk):
            kept.clear()
            _run(dense, layers, batch.inputs, remember)
            _run(model, layers, batch.inputs, compare)
    return LayerErrors(error, energy)


def _squares(x: Tensor) -> float:
    return float(x.double().square().sum())


def _run(model: nn.Module, layers, inputs, visit) -> None:  # type: ignore[no-untyped-def]
    """Run the model once and show ``visit`` every output of every layer."""
    calls: dict[str, int] = {}
    handles = []

    def hook(layer: PrunableLayer, name: str):  # type: ignore[no-untyped-def]
        def seen(module: nn.Module, args: object, output: Tensor) -> None:
            nth = calls.get(name, 0)
            calls[name] = nth + 1
            # the model may go on in place (an in-place activation)
            visit(layer, (name, nth), module, output.detach().clone())

        return seen

    try:
        for layer in layers:
            for name in layer.module_names:
                module = model.get_submodule(name)
                handles.append(module.register_forward_hook(hook(layer, name)))
        run_model(model, {}, inputs)
    finally:
        for handle in handles:
            handle.remove()
