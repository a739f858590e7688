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
# inputs are unfolded and summed up in pieces of so many bytes at most
_PIECE = 64 << 20
# matrices of the size of a Gram matrix in a search with refit, counted on a network of 3136 inputs
_SEARCH = 12


def memory_of(run: PruningRun) -> dict[str, int]:
    """What is held at the same time, at the worst moment, beyond what there is already."""
    config, dense, n = run.config, run.state.dense_weights(), run.train.n
    positions = multiply_adds_per_weight(run.model, run.layers, dense, run.train)
    outputs = [positions[x.name] * x.rows * dense[x.parameter].element_size() for x in run.layers]
    sample = int(2 * sum(outputs))  # of the layers, and of what lies between them
    weights = sum(w.numel() * w.element_size() for w in dense.values())
    # dense and current values and the mask of the state, and the pruned model's weights
    held = {"values and masks": 2 * weights + run.state.n}
    if config.prune.objective == "global":
        curvature = config.curvature if run.objective is None else run.objective.options
        few = min(n, curvature.samples)
        most = min(n, curvature.gradient_samples or n)
        held["per-sample inputs and gradients"] = few * sample
        held["gradients of batches"] = 8 * few * min(config.batches.size, run.state.n)
        held["one pass"] = min(most, config.curvature.chunk) * sample
    layers = tuning = 0
    if decides_layers(config):
        # dense and pruned form of what runs through the model, where it is kept
        held["activations between blocks"] = 2 * _between_bytes(run)
        layers = max(_layer_bytes(run, x, positions[x.name]) for x in run.layers)
    if run.tuner is not None:
        # leaves, gradients, two moments, the best so far, and a step's activations
        batch = int(run.tuner.options.batch)
        tuning = 5 * weights + min(batch, run.tuner.chunk) * sample
    held["the largest layer" if layers >= tuning else "tuning"] = max(layers, tuning)
    return held


def gram_bytes(run: PruningRun, layer: PrunableLayer) -> int:
    """Moments of inputs of the pruned and of the dense model, for every calibration set."""
    sets = len(fold(run.train, run.config, np.random.SeedSequence(0)))
    sets += run.holdout is not None
    return sets * _forms(run) * layer.groups * layer.cols**2 * _FLOAT64


def _forms(run: PruningRun) -> int:
    return 3 if run.config.curvature.inputs == "pruned" else 1


def _layer_bytes(run: PruningRun, layer: PrunableLayer, positions: float) -> int:
    """Moments, those of the parts together, what the search makes of them, and the inputs of a
    chunk: as they are, and pieces of them unfolded."""
    square = layer.groups * layer.cols**2 * _FLOAT64
    chunk = min(run.config.curvature.chunk, run.train.n)
    kernel = layer.cols // layer.shape[1]
    unfolded = int(chunk * positions * layer.groups * layer.cols) * _FLOAT64
    inputs = unfolded // kernel + 3 * min(_PIECE, unfolded)  # as they are in two forms, and pieces
    scratch = (_forms(run) + _SEARCH) * square + 6 * layer.numel * _FLOAT64
    return gram_bytes(run, layer) + scratch + inputs


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
