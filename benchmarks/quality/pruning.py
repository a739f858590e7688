"""Run one method on one model, and check that it did what its kind and budget say."""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from optiprune import optimize_masks
from optiprune.curvature import CalibrationSet, PrunableLayer
from optiprune.curvature.losses import resolve_loss

from .baselines import LAYER_METHODS, LayerBudget, prune_layerwise
from .baselines.refitted import refit_layers
from .baselines.whole_model import MODEL_METHODS
from .grid import Cell, Density
from .methods import Method

__all__ = ["BrokenRuleError", "check_pruned", "prune_with"]

Masks = dict[str, Tensor]


class BrokenRuleError(ValueError):
    """A method kept too much, broke its pattern, or moved what it says it leaves alone."""


def prune_with(
    cell: Cell,
    model: nn.Module,
    layers: Sequence[PrunableLayer],
    batches: list[Any],
    *,
    chunk: int,
    threads: int,
) -> Masks:
    """Prune ``model`` in place by the cell's method; returns parameter name -> bool mask."""
    if cell.method.ours:
        return _by_optiprune(cell, model, layers, batches, chunk, threads)
    data = CalibrationSet.collect(batches, torch.device("cpu"))
    masks, values = _by_baseline(cell, model, layers, data, chunk)
    with torch.no_grad():
        parameters = dict(model.named_parameters())
        for layer in layers:
            weight, mask = parameters[layer.parameter], masks[layer.parameter].view(layer.shape)
            new = weight if values is None else values[layer.parameter].view(layer.shape)
            weight.copy_(torch.where(mask, new.to(weight), 0.0))
    return dict(masks)


def _by_optiprune(
    cell: Cell,
    model: nn.Module,
    layers: Sequence[PrunableLayer],
    batches: list[Any],
    chunk: int,
    threads: int,
) -> Masks:
    options = copy.deepcopy(cell.method.options)
    options.setdefault("curvature", {}).setdefault("chunk", chunk)
    options["threads"] = threads
    prune = options.setdefault("prune", {})
    prune.setdefault("loss", cell.loss)
    pattern = cell.density.pattern
    result = optimize_masks(
        model,
        batches,
        sparsity=1.0 - cell.density.value,
        pattern="unstructured" if pattern is None else str(cell.density),
        include=[layer.name for layer in layers],
        config=options,
        seed=cell.seed,
        progress=False,
    )
    return {name: mask.detach().clone() for name, mask in result.masks.items()}


def _by_baseline(
    cell: Cell,
    model: nn.Module,
    layers: Sequence[PrunableLayer],
    data: CalibrationSet,
    chunk: int,
) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor] | None]:
    method, density = cell.method, cell.density
    if method.source == "layer":
        base = LAYER_METHODS[method.base]
        budget = LayerBudget(density.value, density.pattern, base.paper_scope)
        return prune_layerwise(model, layers, base, data, budget, refit=method.refit, chunk=chunk)
    if method.source == "callable":
        module, _, name = method.base.partition(":")
        function = getattr(importlib.import_module(module), name)
        return function(
            model,
            layers,
            data,
            density=density.value,
            pattern=density.pattern,
            seed=cell.seed,
            **method.options,
        )
    masks, values = MODEL_METHODS[method.base].prune(
        model,
        layers,
        data,
        density=density.value,
        loss=resolve_loss(cell.loss, next(data.batches(1)).targets),
        seed=np.random.SeedSequence(cell.seed),
        seconds=None,
    )
    if method.refit:
        values = refit_layers(model, layers, masks, values, data, chunk=chunk)
    return masks, values


def check_pruned(
    before: Mapping[str, Tensor],
    model: nn.Module,
    layers: Sequence[PrunableLayer],
    masks: Mapping[str, Tensor],
    density: Density,
    method: Method,
) -> tuple[int, int]:
    """(weights kept, weights that take part), once the rules of the comparison were kept.

    Pruned weights are zero and all weights finite; no more are kept than the density allows (rows
    that round up are allowed); every group of M consecutive weights of a row keeps N at most; a
    method of kind "mask" changed nothing but pruned weights; biases and buffers are as they were,
    unless the method moves weights.

    Parameters
    ----------
    before : the dense model's state dict, copied

    Raises `BrokenRuleError`, which names the layer.
    """
    kept = total = allowed = 0
    after = model.state_dict()
    names = {layer.parameter for layer in layers}
    missing = sorted(names - set(masks))
    if missing:
        raise BrokenRuleError(f"no mask for {', '.join(missing[:5])}")
    for layer in layers:
        name = layer.parameter
        weight, mask = after[name], masks[name].view(layer.shape)
        if not bool(torch.isfinite(weight).all()):
            raise BrokenRuleError(f"{name} has weights that are NaN or infinite")
        if bool((weight[~mask] != 0).any()):
            raise BrokenRuleError(f"{name} has pruned weights that are not zero")
        if method.kind == "mask" and not torch.equal(weight[mask], before[name][mask]):
            raise BrokenRuleError(f"{name}: kept weights were changed by a method of masks alone")
        if density.pattern is not None:
            n, m = density.pattern
            most = int(mask.reshape(layer.rows, -1, m).sum(-1).max())
            if most > n:
                raise BrokenRuleError(f"{name} keeps {most} of {m} somewhere, not {n}")
        kept += int(mask.sum())
        total += layer.numel
        allowed += layer.rows * math.ceil(density.value * layer.cols - 1e-9)
    if kept > allowed:
        raise BrokenRuleError(
            f"{kept} of {total} weights are kept, density {density} allows {allowed}"
        )
    if method.kind == "mask":
        for name, tensor in before.items():
            if name not in names and not torch.equal(tensor, after[name]):
                raise BrokenRuleError(f"{name} was changed by a method of masks alone")
    return kept, total
