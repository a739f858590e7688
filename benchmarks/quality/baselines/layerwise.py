"""Prune a model layer by layer, each on the inputs that the pruned layers before it produce."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from optiprune.config import CurvatureOptions
from optiprune.curvature.data import CalibrationSet
from optiprune.curvature.layers import PrunableLayer
from optiprune.curvature.stages import LayerWalk
from optiprune.refit import refit_rows

from .method import BaselineError, LayerBudget, LayerMethod
from .moments import LayerMoments

__all__ = ["POSITIONS", "prune_layerwise"]

# positions of a layer for each of its inputs, at most: optiprune's own default, so that no method
# sees more of the data than another
POSITIONS = CurvatureOptions().positions


def prune_layerwise(
    model: nn.Module,
    layers: Sequence[PrunableLayer],
    method: LayerMethod,
    data: CalibrationSet,
    budget: LayerBudget | Mapping[str, LayerBudget],
    *,
    refit: bool,
    chunk: int = 256,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Masks and weights of all layers; the model itself stays as it is.

    As in the papers: layers in the order of the forward pass; the inputs of a layer are those that
    the pruned layers before it produce, and the target is what the dense weights make of the same
    inputs. Layers are reached by `LayerWalk`, at a cost linear in the depth where the model is a
    chain of blocks; the moments of one input are held at a time.

    Parameters
    ----------
    budget : one for every layer, or layer name -> its own
    refit : least squares on the mask of each layer before the next is looked at
        (`optiprune.refit.refit_rows`), whatever the method did to the weights
    chunk : samples sent through the model at once

    Returns
    -------
    parameter name -> mask, bool, and parameter name -> weights in the parameter's dtype, zero off
    the mask; both in the parameter's shape

    Raises
    ------
    BaselineError
        A layer without a budget, a budget for no layer, a pattern that does not fit, no layers, or
        a chunk below 1: before anything runs. And as the method does.
    CalibrationError
        If a layer does not run, or an input is NaN or infinite.
    """
    budgets = _checked(layers, budget, chunk)
    dense = {layer.parameter: model.get_parameter(layer.parameter).detach() for layer in layers}
    masks: dict[str, Tensor] = {}
    walk = LayerWalk(model, layers, dense, [data], chunk, "pruned-only", POSITIONS)
    for stage in walk:
        for layer in stage.layers:
            parameter = dense[layer.parameter]
            moments = LayerMoments.of(stage.grams[0][layer.name])
            mask, weight = _pruned(layer, parameter, moments, method, budgets[layer.name], refit)
            masks[layer.parameter] = mask.reshape(layer.shape)
            walk.weights[layer.parameter] = weight.to(parameter.dtype).reshape(layer.shape)
        del stage, moments  # not held while the walk sums up the next ones
    return masks, {name: walk.weights[name] for name in masks}


def _pruned(
    layer: PrunableLayer,
    parameter: Tensor,
    moments: LayerMoments,
    method: LayerMethod,
    budget: LayerBudget,
    refit: bool,
) -> tuple[Tensor, Tensor]:
    """Mask and float64 weights, (rows, cols)."""
    dense = parameter.to(torch.float64).reshape(layer.rows, layer.cols)
    mask, weight = method.prune(moments, dense, budget)
    if refit:
        gram = moments.gram
        target, energy = gram.cross(dense), gram.target_energy(dense)
        weight = refit_rows(gram.H, target, energy, mask, weight).values
    return mask, weight


def _checked(
    layers: Sequence[PrunableLayer], budget: LayerBudget | Mapping[str, LayerBudget], chunk: int
) -> dict[str, LayerBudget]:
    if not layers:
        raise BaselineError("there are no layers to prune")
    if chunk < 1:
        raise BaselineError(f"chunk must be at least 1, got {chunk!r}")
    names = [layer.name for layer in layers]
    budgets = dict.fromkeys(names, budget) if isinstance(budget, LayerBudget) else dict(budget)
    unknown = sorted(set(budgets) - set(names))
    missing = [name for name in names if name not in budgets]
    if unknown or missing:
        raise BaselineError(
            f"budgets must be those of the layers {', '.join(names)}; missing: {missing}, of no "
            f"layer: {unknown}"
        )
    for layer in layers:
        budgets[layer.name].require_fits(layer.cols, f"layer '{layer.name}'")
    return budgets
