"""Time, by doing a little of a run.

Of every shape of layer one is tried: the moments of its inputs on some samples, and the decision of
some of its rows. A pass of the model, a pass of the tuning over some samples and two steps of the
global search are timed where the run has them. It is an estimate for a choice, not a bound.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from optiprune.allocation import CheapPruning
from optiprune.curvature import CalibrationSet, PrunableLayer
from optiprune.curvature.gram import LayerGram, collect_grams
from optiprune.curvature.runner import run_model, untouched
from optiprune.engine.allocating import allocates
from optiprune.engine.budgets import block_of, pattern_of
from optiprune.engine.initial import best_per_group
from optiprune.engine.layer_decision import LayerDecision, decides_layers
from optiprune.engine.row_blocks import Judged
from optiprune.engine.run import PruningRun

__all__ = ["Probe", "probe_run", "seconds_of", "seconds_of_layer"]

# samples that are tried, and two numbers of rows
_SAMPLES, _LEAST, _ROWS = 256, 2, 16
# a backward pass costs about twice the forward one
_TRAINING = 3.0
# (rows of a convolution group or 0, columns, groups, positions): layers of one cost a row
Shape = tuple[int, int, int, float]


@dataclass(frozen=True, slots=True)
class ShapeCost:
    """Seconds of one shape of layer.

    Attributes
    ----------
    moments : for a sample
    row : decision of one row; ``fixed`` of the layer, whatever its rows
    level : of one density of the allocation, for a row
    """

    moments: float
    fixed: float
    row: float
    level: float


@dataclass(frozen=True, slots=True)
class Probe:
    """Seconds measured.

    Attributes
    ----------
    forward : of the model, for one sample
    tuning : of a pass, for one sample; 0 without tuning
    step : of the global search; 0 without one
    shapes : of layers
    positions : of a layer for one sample, by its name
    """

    forward: float
    tuning: float
    step: float
    shapes: Mapping[Shape, ShapeCost]
    positions: Mapping[str, float]

    def of(self, layer: PrunableLayer) -> ShapeCost:
        return self.shapes[_shape(layer, self.positions)]


def probe_run(run: PruningRun) -> Probe:
    """Measure. Neither the run nor its model is changed."""
    positions = run.positions()
    few = run.train.sample(_SAMPLES, np.random.default_rng(0))
    forward = _forward(run, few)
    shapes: dict[Shape, ShapeCost] = {}
    if decides_layers(run.config):
        smallest = min(run.layers, key=lambda x: x.cols)
        _shape_cost(run, smallest, few, forward)  # kernels are compiled
        for layer in run.layers:
            key = _shape(layer, positions)
            if key not in shapes:
                shapes[key] = _shape_cost(run, layer, few, forward)
    return Probe(
        forward=forward,
        tuning=_tuning(run, few),
        step=_step(run) if run.config.prune.objective == "global" else 0.0,
        shapes=shapes,
        positions=positions,
    )


def seconds_of_layer(run: PruningRun, layer: PrunableLayer, probe: Probe) -> float:
    """Moments and decision of one layer; 0 where layers are not decided one by one."""
    if not decides_layers(run.config):
        return 0.0
    cost = probe.of(layer)
    return _judged(run) * cost.moments + cost.fixed + layer.rows * cost.row


def seconds_of(run: PruningRun, probe: Probe, layers: float) -> dict[str, float]:
    """By part of the run; ``layers`` is the sum over them."""
    config, n = run.config, _judged(run)
    out = {"first mask": probe.forward * run.train.n}
    if allocates(config) and decides_layers(config):
        out["allocation"] = _allocation(run, probe)
    if config.prune.objective == "global":
        out["search"] = config.batches.steps * probe.step
    if decides_layers(config):
        # dense and pruned form, once to look and once to go on
        out["layers"] = layers + 4 * n * probe.forward
    if run.tuner is not None:
        out["tuning"] = int(run.tuner.options.epochs) * run.train.n * probe.tuning
    return out


def _judged(run: PruningRun) -> int:
    """Samples to fit and to judge by."""
    return run.train.n + (0 if run.holdout is None else run.holdout.n)


def _allocation(run: PruningRun, probe: Probe) -> float:
    options = run.config.allocation
    levels = options.levels if options.method == "knapsack" else 0
    fits = min(options.samples, run.train.n)
    judging = min(options.judging, _judged(run))
    total = 2 * (fits + judging) * probe.forward + _TRAINING * judging * probe.forward
    for layer in run.layers:
        cost = probe.of(layer)
        total += (fits + judging) * cost.moments
        total += levels * min(options.rows, layer.rows) * cost.level
    return total


def _shape(layer: PrunableLayer, positions: Mapping[str, float]) -> Shape:
    rows = layer.rows if layer.groups > 1 else 0
    return rows, layer.cols, layer.groups, positions[layer.name]


def _forward(run: PruningRun, data: CalibrationSet) -> float:
    dense = run.state.dense_weights()
    batches = list(data.batches(run.config.curvature.chunk))
    with torch.no_grad(), untouched(run.model):
        run_model(run.model, dense, batches[0].inputs)
        start = time.perf_counter()
        for batch in batches:
            run_model(run.model, dense, batch.inputs)
        return (time.perf_counter() - start) / data.n


def _shape_cost(
    run: PruningRun, layer: PrunableLayer, few: CalibrationSet, forward: float
) -> ShapeCost:
    dense, curvature = run.state.dense_weights(), run.config.curvature
    start = time.perf_counter()
    gram = collect_grams(
        run.model, [layer], dense, None, few, curvature.chunk, curvature.positions
    )[layer.name]
    moments = max(0.0, (time.perf_counter() - start) / few.n - forward)
    block = block_of(layer, run.config)
    tile = 1 if block is None else block.rows  # whole bands of tiles
    rows = layer.rows if layer.groups > 1 else min(-(-_ROWS // tile) * tile, layer.rows)
    least = rows if layer.groups > 1 else min(-(-_LEAST // tile) * tile, rows)
    first = _decision(run, layer, gram, least)
    second = _decision(run, layer, gram, rows) if rows > least else first
    # where the difference drowns in noise, all is taken to be of the layer
    row = max(0.0, second - first) / (rows - least) if rows > least else first / rows
    level = _level(run, layer, gram, few) if allocates(run.config) else 0.0
    return ShapeCost(moments, max(0.0, second - rows * row), row, level)


def _decision(run: PruningRun, layer: PrunableLayer, gram: LayerGram, rows: int) -> float:
    """Seconds of a decision over the first rows of a layer."""
    part = replace(layer, shape=(rows, *layer.shape[1:]))
    weight = run.state.dense_weights()[layer.parameter].double().reshape(layer.rows, layer.cols)
    w = weight[:rows]

    def ignore(judged: Judged, sweep: int, turn: int, seconds: float) -> None:
        pass

    grams = [gram, gram] if isinstance(run.config.refit.damping, str) else [gram]
    held = None if run.holdout is None else gram
    decision = LayerDecision(
        part,
        grams if run.config.prune.refit else [gram],
        held,
        w,
        _mask(run, part, w),
        run.config,
        run.solver,
        run.stop,
        np.random.SeedSequence(run.config.seed),
        1.0,
        ignore,
    )
    start = time.perf_counter()
    decision.run()
    return time.perf_counter() - start


def _mask(run: PruningRun, layer: PrunableLayer, w: Tensor) -> Tensor:
    """By magnitude, (rows, cols), at the density that is asked for and in the run's pattern."""
    density = 1.0 - run.config.prune.sparsity
    score = w.abs().cpu().numpy()
    pattern, block = pattern_of(layer, run.config), block_of(layer, run.config)
    if pattern is not None:
        groups = np.arange(score.size) // pattern[1]
        kept = np.full(score.size // pattern[1], pattern[0])
    elif block is not None:
        score = np.ones_like(score)
        wide = max(1, round(density * layer.cols / block.cols)) * block.cols
        score[:, wide:] = 0
        return torch.from_numpy(score > 0).to(w.device)
    else:
        groups = np.repeat(np.arange(layer.rows), layer.cols)
        kept = np.full(layer.rows, max(1, round(density * layer.cols)))
    flat = best_per_group(score.reshape(-1), groups, kept)
    return torch.from_numpy(flat.reshape(score.shape)).to(w.device)


def _level(run: PruningRun, layer: PrunableLayer, gram: LayerGram, few: CalibrationSet) -> float:
    """Of one density of the allocation's curves, for a row."""
    config = run.config
    pruning = CheapPruning(
        model=run.model,
        layers=[layer],
        scores={layer.name: np.abs(run.state.dense[run.state.span(run.layers.index(layer))])},
        dense=run.state.dense_weights(),
        counts={layer.name: [max(1, round((1 - config.prune.sparsity) * layer.numel))]},
        train=few,
        refit=config.prune.refit,
        by_row=False,
        damping=1e-2,
        chunk=config.curvature.chunk,
        positions=config.curvature.positions,
    )
    rows = slice(None) if layer.groups > 1 else np.arange(min(_ROWS, layer.rows))
    start = time.perf_counter()
    for _ in pruning.levels(layer, gram, rows):
        pass
    count = layer.rows if isinstance(rows, slice) else len(rows)
    return (time.perf_counter() - start) / count


def _tuning(run: PruningRun, few: CalibrationSet) -> float:
    """Of a pass over some samples, for one of them."""
    if run.tuner is None:
        return 0.0
    short = replace(
        run.tuner,
        train=few,
        holdout=None,
        options=run.tuner.options.model_copy(update={"epochs": 1}),
    )
    masks = {k: torch.ones_like(w, dtype=torch.bool) for k, w in short.dense.items()}
    first = replace(short, train=few.sample(8, np.random.default_rng(0)))
    first.run(first.dense, masks, np.random.SeedSequence(0))  # what is loaded once
    _, report = short.run(short.dense, masks, np.random.SeedSequence(0))
    return report.seconds / few.n


def _step(run: PruningRun) -> float:
    """Of the global search, the second of two."""
    config = run.config.replace(
        batches={"steps": 2, "seconds": None},
        prune={"refit": False},
        schedule={"kind": "one-shot", "stages": 1},
        allocation={"method": "uniform", "budget": "parameters"},
        tune={"epochs": 0},
        subset={"rounds": 0},
    )
    short = PruningRun(run.model, run.train, run.holdout, run.loss, config, run.solver, run.stop)
    short.prepare()
    history = short.run().history
    return history[-1].wall_s if history else 0.0
