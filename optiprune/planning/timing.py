"""Time, by doing a little of a run.

One forward pass over some samples and one layer of middling cost (or two steps of the global
search) are timed; other layers are taken to cost as their share of rows x columns^2, the order of
a refit, and Gram matrices as positions x columns^2. It is an estimate for a decision, not a bound.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from optiprune.allocation import multiply_adds_per_weight
from optiprune.config import Config
from optiprune.curvature import CalibrationSet, PrunableLayer
from optiprune.curvature.runner import run_model, untouched
from optiprune.engine.allocating import allocates
from optiprune.engine.initial import best_per_group
from optiprune.engine.reconstruction import reconstruct
from optiprune.engine.run import PruningRun

__all__ = ["Probe", "decides_layers", "probe_run", "seconds_of", "seconds_of_layer"]

# a backward pass costs about twice the forward one
_TRAINING = 3.0


@dataclass(frozen=True, slots=True)
class Probe:
    """Seconds measured.

    Attributes
    ----------
    forward : of the model, for one sample
    decide : of a layer, for one of rows x columns^2
    gram : of a layer's moments, for one of positions x columns^2
    step : of the global search; 0 without one
    positions : of a layer for one sample, by its name
    """

    forward: float
    decide: float
    gram: float
    step: float
    positions: dict[str, float]


def probe_run(run: PruningRun) -> Probe:
    dense = run.state.dense_weights()
    positions = multiply_adds_per_weight(run.model, run.layers, dense, run.train)
    forward = _forward(run.model, dense, run.train, run.config.curvature.chunk)
    decide = gram = 0.0
    if decides_layers(run.config):
        decide, gram = _one_layer(run, positions, forward)
    step = _one_step(run) if run.config.prune.objective == "global" else 0.0
    return Probe(forward, decide, gram, step, positions)


def decides_layers(config: Config) -> bool:
    return config.prune.refit or config.prune.objective == "reconstruction"


def seconds_of_layer(run: PruningRun, layer: PrunableLayer, probe: Probe) -> float:
    """Moments and decision of one layer; 0 where layers are not decided one by one."""
    if not decides_layers(run.config):
        return 0.0
    n = run.train.n + (0 if run.holdout is None else run.holdout.n)
    moments = probe.gram * n * probe.positions[layer.name] * layer.cols**2
    return moments + probe.decide * cost_of(layer)


def seconds_of(run: PruningRun, probe: Probe, layers: float) -> dict[str, float]:
    config = run.config
    n = run.train.n + (0 if run.holdout is None else run.holdout.n)
    out = {"first mask": probe.forward * run.train.n}
    if allocates(config):
        allocation = config.allocation
        rows = sum(
            min(1.0, allocation.rows / x.rows) * probe.decide * cost_of(x) for x in run.layers
        )
        few = min(allocation.samples, run.train.n)
        judged = min(allocation.judging, n)
        out["allocation"] = (
            rows
            + few / max(1, n) * layers
            + 2 * few * probe.forward
            + _TRAINING * judged * probe.forward
        )
    if config.prune.objective == "global":
        out["search"] = config.batches.steps * probe.step
    if decides_layers(config):
        # dense and pruned form, once to look and once to go on
        out["layers"] = layers + 4 * n * probe.forward
    if run.tuner is not None:
        passes = int(run.tuner.options.epochs) * run.train.n
        out["tuning"] = passes * (_TRAINING + 1) * probe.forward
        if run.holdout is not None:
            out["tuning"] += int(run.tuner.options.epochs) * run.holdout.n * 2 * probe.forward
    return out


def _forward(model: nn.Module, dense: dict[str, Tensor], data: CalibrationSet, chunk: int) -> float:
    batch = next(iter(data.batches(min(chunk, data.n))))
    with torch.no_grad(), untouched(model):
        run_model(model, dense, batch.inputs)
        start = time.perf_counter()
        run_model(model, dense, batch.inputs)
        return (time.perf_counter() - start) / batch.n


def cost_of(layer: PrunableLayer) -> float:
    return float(layer.rows) * layer.cols**2


def _one_layer(run: PruningRun, positions: dict[str, float], forward: float) -> tuple[float, float]:
    """(deciding, moments) of one layer, per unit of cost."""
    layer = sorted(run.layers, key=cost_of)[len(run.layers) // 2]
    config = run.config
    weight = run.state.dense_weights()[layer.parameter]
    mask = _a_mask(run, layer, weight)
    quick = config.replace(
        window={"epochs": 0},
        tune={"epochs": 0},
        layers={"sparsity": {layer.name: config.layers.sparsity[layer.name]}}
        if layer.name in config.layers.sparsity
        else {"sparsity": {}},
    )
    result = reconstruct(
        run.model,
        [layer],
        {layer.parameter: mask},
        run.train,
        run.holdout,
        quick,
        run.solver,
        np.random.SeedSequence(config.seed),
        stop=run.stop,
    )
    errors = result.layers[0]
    samples = run.train.n + (0 if run.holdout is None else run.holdout.n)
    # the walk of a single layer runs the whole model up to it
    gram = max(0.0, errors.gram_s - forward * samples)
    work = samples * positions[layer.name] * layer.cols**2
    return (errors.search_s + errors.refit_s) / cost_of(layer), gram / work


def _a_mask(run: PruningRun, layer: PrunableLayer, weight: Tensor) -> Tensor:
    """By magnitude, at the density that is asked for, in the pattern of the run."""
    i = next(n for n, x in enumerate(run.layers) if x is layer)
    span = run.state.span(i)
    score = np.abs(run.state.dense[span])
    if allocates(run.config):
        groups: npt.NDArray[np.int64] = np.zeros(layer.numel, np.int64)
        kept = np.array([max(1, round((1 - run.config.prune.sparsity) * layer.numel))])
    else:
        inside, groups = np.unique(run.budgets.groups[span], return_inverse=True)
        shares = run.budgets.kept[inside] / run.budgets.sizes[inside]
        kept = np.rint(shares * np.bincount(groups)).astype(np.int64)
    flat = best_per_group(score, groups, kept)
    return torch.from_numpy(flat).reshape(layer.shape).to(weight.device)


def _one_step(run: PruningRun) -> float:
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
