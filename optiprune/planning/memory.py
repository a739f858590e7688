"""Memory, by counting what a run holds at its worst moment."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from optiprune.curvature import PrunableLayer
from optiprune.curvature.capture import forward_order
from optiprune.curvature.chain import find_chains
from optiprune.curvature.runner import untouched
from optiprune.engine.damping import fold_count
from optiprune.engine.layer_decision import decides_layers
from optiprune.engine.run import PruningRun
from optiprune.engine.window_tuning import tuning_bytes

__all__ = ["gram_bytes", "memory_of"]

_FLOAT64 = 8
# inputs are unfolded and summed up in pieces of so many bytes at most
_PIECE = 64 << 20
# matrices of the size of a Gram matrix in a search with refit, counted on a network of 3136 inputs
_SEARCH = 12


def memory_of(run: PruningRun) -> dict[str, int]:
    """What is held at the same time, at the worst moment, beyond what there is already."""
    config, dense, n = run.config, run.state.dense_weights(), run.train.n
    positions = run.positions()
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
    layers = tuning = windows = 0
    if decides_layers(config):
        # dense and pruned form of what runs through the model, where it is kept
        between, windows = _chain_bytes(run, positions)
        held["activations between blocks"] = 2 * between
        layers = max(_layer_bytes(run, x, positions[x.name]) for x in run.layers)
        executor = config.executor
        if executor.kind != "local" and config.prune.objective == "reconstruction":
            largest = max(gram_bytes(run, x) for x in run.layers)
            held["Gram matrices handed out"] = (config.workers + executor.ahead) * largest
            # those of a cluster have memory of their own
            layers *= config.workers if executor.kind == "processes" else 1
    if run.tuner is not None:
        # leaves, gradients, two moments, the best so far, and a step's activations
        batch = int(run.tuner.options.batch)
        tuning = 5 * weights + min(batch, run.tuner.chunk) * sample
    moments = {"the largest layer": layers, "tuning of a block": windows, "tuning": tuning}
    worst = max(moments, key=lambda name: moments[name])
    return held | {worst: moments[worst]}


def gram_bytes(run: PruningRun, layer: PrunableLayer) -> int:
    """Moments of inputs of the pruned and of the dense model, for every calibration set."""
    sets = fold_count(run.train, run.config) + (run.holdout is not None)
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


def _chain_bytes(run: PruningRun, positions: Mapping[str, float]) -> tuple[int, int]:
    """What the blocks of a chain hand on, for all samples, and the tuning of one of them; 0 and 0
    without a chain."""
    dense, config = run.state.dense_weights(), run.config
    order = forward_order(run.model, run.layers, dense, run.train)
    one = next(iter(run.train.batches(1))).inputs
    with torch.no_grad(), untouched(run.model):
        chains = find_chains(run.model, order, dense, one)
        if not chains:
            return 0, 0
        x = chains[0].first_call(run.model, dense, one).x
    samples = run.train.n + (0 if run.holdout is None else run.holdout.n)
    between, tuning = x.numel() * x.element_size() * samples, 0
    if config.window.epochs and config.prune.refit and config.curvature.inputs == "pruned":
        step = min(samples, max(config.window.batch, config.curvature.chunk))
        for block in (block for chain in chains for block in chain.blocks):
            of = [(dense[x.parameter], positions[x.name] * x.rows) for x in block.layers]
            weights = sum(w.numel() * w.element_size() for w, _ in of)
            outputs = step * sum(outputs * w.element_size() for w, outputs in of)
            tuning = max(tuning, tuning_bytes(weights, int(outputs)))
    return between, tuning
