"""Memory, by counting what a run holds at its worst moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from optiprune.curvature import PrunableLayer
from optiprune.curvature.capture import forward_order
from optiprune.curvature.chain import find_chains
from optiprune.curvature.runner import untouched
from optiprune.engine.damping import fold_count
from optiprune.engine.layer_decision import decides_layers
from optiprune.engine.masked_adam import TUNED_COPIES
from optiprune.engine.run import PruningRun
from optiprune.engine.window_tuning import tunes_windows, tuning_bytes

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
    layers = tuning = 0
    chain = _ChainBytes()
    if decides_layers(config):
        chain = _chain_bytes(run, positions)
        held["activations between blocks"] = chain.between
        held["inputs of a block's layers"] = chain.inputs
        layers = max(_layer_bytes(run, x, positions[x.name]) for x in run.layers)
        executor = config.executor
        if executor.kind != "local" and config.prune.objective == "reconstruction":
            largest = max(gram_bytes(run, x) for x in run.layers)
            held["Gram matrices handed out"] = (config.workers + executor.ahead) * largest
            # those of a cluster have memory of their own
            layers *= config.workers if executor.kind == "processes" else 1
    if run.tuner is not None:
        batch = int(run.tuner.options.batch)  # whose activations are held in a step
        tuning = TUNED_COPIES * weights + min(batch, run.tuner.chunk) * sample
    moments = {"the largest layer": layers, "tuning of a block": chain.tuning, "tuning": tuning}
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
    unfolded = int(chunk * positions * layer.groups * layer.cols) * _FLOAT64
    pieces = 3 * min(_PIECE, unfolded)
    inputs = unfolded // _kernel(layer) + pieces  # as they are in two forms, and pieces
    scratch = (_forms(run) + _SEARCH) * square + 6 * layer.numel * _FLOAT64
    return gram_bytes(run, layer) + scratch + inputs


@dataclass(frozen=True, slots=True)
class _ChainBytes:
    """Of a model whose blocks follow each other: all 0 without such a chain.

    Attributes
    ----------
    between : what runs between two blocks, for all samples: in both forms where both are needed,
        and once more while it goes on
    inputs : of the layers of a block in the dense form, kept until they are decided
    tuning : of a block
    """

    between: int = 0
    inputs: int = 0
    tuning: int = 0


def _chain_bytes(run: PruningRun, positions: Mapping[str, float]) -> _ChainBytes:
    dense, config = run.state.dense_weights(), run.config
    order = forward_order(run.model, run.layers, dense, run.train)
    one = next(iter(run.train.batches(1))).inputs
    with torch.no_grad(), untouched(run.model):
        chains = find_chains(run.model, order, dense, one)
        if not chains:
            return _ChainBytes()
        x = chains[0].first_call(run.model, dense, one).x
    samples = run.train.n + (0 if run.holdout is None else run.holdout.n)
    between = x.numel() * x.element_size() * samples
    if config.curvature.inputs != "pruned":
        return _ChainBytes(2 * between)
    inputs = tuning = 0
    step = min(samples, max(config.window.batch, config.curvature.chunk))
    for block in (block for chain in chains for block in chain.blocks):
        seen = outputs = 0.0
        weights = 0
        for layer in block.layers:
            w = dense[layer.parameter]
            each = positions[layer.name] * w.element_size()
            seen += each * layer.groups * layer.cols / _kernel(layer)
            outputs += each * layer.rows
            weights += w.numel() * w.element_size()
        inputs = max(inputs, int(samples * seen))
        if tunes_windows(config):
            tuning = max(tuning, tuning_bytes(weights, int(step * outputs)))
    return _ChainBytes(3 * between, inputs, tuning)


def _kernel(layer: PrunableLayer) -> int:
    """Places of a convolution's kernel; 1 for Linear."""
    return layer.cols // layer.shape[1]
