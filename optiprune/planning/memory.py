"""Memory, by counting what a run holds at its worst moment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from optiprune.allocation import multiply_adds_per_weight
from optiprune.curvature import CalibrationSet, PrunableLayer
from optiprune.curvature.data import tree_leaves
from optiprune.curvature.runner import untouched
from optiprune.curvature.stages import LayerWalk
from optiprune.engine.damping import fold
from optiprune.engine.run import PruningRun

from .timing import decides_layers

__all__ = ["gram_bytes", "memory_of"]

_FLOAT64 = 8


def memory_of(run: PruningRun) -> dict[str, int]:
    """What is held at the same time, at the worst moment, beyond what there is already."""
    config, dense = run.config, run.state.dense_weights()
    weights = sum(w.numel() * w.element_size() for w in dense.values())
    # dense and current values and the mask of the state, and the pruned model's weights
    held = {"values and masks": 2 * weights + run.state.n}
    if config.prune.objective == "global":
        n = (
            run.train.n
            if config.curvature.gradient_samples is None
            else min(run.train.n, config.curvature.gradient_samples)
        )
        few = min(run.train.n, config.curvature.samples)
        held["per-sample inputs and gradients"] = few * _activation_bytes(run)
        held["gradients of batches"] = 4 * few * min(config.batches.size, run.state.n) * 2
        held["one pass"] = min(n, config.curvature.chunk) * _activation_bytes(run)
    layers = 0
    if decides_layers(config):
        between = _between_bytes(run)
        # dense and pruned form of what runs through the model, where it is kept
        held["activations between blocks"] = 2 * between
        layers = max(
            gram_bytes(run, x) + 6 * x.numel * _FLOAT64 + 2 * x.cols**2 * _FLOAT64
            for x in run.layers
        )
    tuning = 0
    if run.tuner is not None:
        # leaves, gradients, two moments, the best so far, and a step's activations
        batch = int(run.tuner.options.batch)
        tuning = 5 * weights + min(batch, run.tuner.chunk) * _activation_bytes(run)
    largest = "the largest layer" if layers >= tuning else "tuning"
    held[largest] = max(layers, tuning)
    return held


def gram_bytes(run: PruningRun, layer: PrunableLayer) -> int:
    """Moments of inputs of the pruned and of the dense model, for every calibration set."""
    forms = 3 if run.config.curvature.inputs == "pruned" else 1
    sets = len(fold(run.train, run.config, np.random.SeedSequence(0)))
    sets += run.holdout is not None
    return sets * forms * layer.groups * layer.cols**2 * _FLOAT64


def _activation_bytes(run: PruningRun) -> int:
    """Outputs of all layers for one sample, and as much again for what lies between them."""
    dense = run.state.dense_weights()
    each = multiply_adds_per_weight(run.model, run.layers, dense, run.train)
    return int(
        2 * sum(each[x.name] * x.rows * dense[x.parameter].element_size() for x in run.layers)
    )


def _between_bytes(run: PruningRun) -> int:
    """What the blocks of a chain hand on, for all samples; 0 without a chain."""
    sets: Sequence[CalibrationSet] = [run.train]
    if run.holdout is not None:
        sets = [run.train, run.holdout]
    dense = run.state.dense_weights()
    walk = LayerWalk(run.model, run.layers, dense, sets, run.config.curvature.chunk)
    if not walk.chains:
        return 0
    one = next(iter(run.train.batches(1)))
    with torch.no_grad(), untouched(run.model):
        call = walk.chains[0].first_call(run.model, dense, one.inputs)
    sizes = [x.numel() * x.element_size() for x in tree_leaves(call.x)]
    return sum(sizes) * sum(s.n for s in sets)
