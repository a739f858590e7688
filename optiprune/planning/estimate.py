"""The plan of a run that is prepared."""

from __future__ import annotations

import time

import numpy as np
import psutil

from optiprune.curvature.inputs import device_of
from optiprune.engine.allocating import allocates
from optiprune.engine.budgets import block_of, pattern_of
from optiprune.engine.layer_decision import decides_layers
from optiprune.engine.run import PruningRun
from optiprune.problems import MIQP

from .available import available_bytes
from .memory import gram_bytes, memory_of
from .plan import LayerPlan, RunPlan, require_memory
from .timing import Probe, probe_run, seconds_of, seconds_of_layer

__all__ = ["check_memory", "make_plan"]


def make_plan(run: PruningRun) -> RunPlan:
    """The plan of a run that is prepared. Neither the run nor its model is changed.

    Raises what `reconstruct` does for the layer that is tried.
    """
    began = time.perf_counter()
    now, available = psutil.Process().memory_info().rss, available_bytes(device_of(run.model))
    config = run.config
    probe = probe_run(run)
    layers = [_layer(run, i, probe) for i in range(len(run.layers))]
    return RunPlan(
        objective=config.prune.objective,
        solver=run.solver.name,
        layers=tuple(layers),
        samples=run.train.n,
        holdout_samples=0 if run.holdout is None else run.holdout.n,
        memory=memory_of(run),
        now=now,
        available=available,
        seconds=seconds_of(run, probe, sum(x.seconds for x in layers)),
        probe_seconds=time.perf_counter() - began,
        notes=tuple(run.notes),
    )


def check_memory(run: PruningRun) -> None:
    """Raise `TooLargeError` if a prepared run would not fit; nothing is tried."""
    require_memory(memory_of(run), available_bytes(device_of(run.model)))


def _layer(run: PruningRun, i: int, probe: Probe) -> LayerPlan:
    config, layer = run.config, run.layers[i]
    kept = None
    if not allocates(config) and config.prune.objective == "reconstruction":
        groups = run.budgets.groups[run.state.span(i)]
        inside = np.unique(groups)
        if run.budgets.sizes[inside].sum() == layer.numel:  # else it shares them with others
            kept = int(run.budgets.kept[inside].sum())
    size, kind, problems = layer.cols, "best subset of a row", layer.rows
    pattern, block = pattern_of(layer, config), block_of(layer, config)
    if pattern is not None:
        size, kind, problems = (
            pattern[1],
            f"{pattern[0]}:{pattern[1]} groups",
            layer.numel // pattern[1],
        )
    elif block is not None:
        kind = "tiles of rows"
    elif config.prune.objective == "global":
        size, problems = min(config.batches.size, run.state.n), config.batches.steps
        kind = "batch over all layers"
    elif not config.prune.refit or MIQP not in run.solver.capabilities.problems:
        size = min(layer.cols, config.batches.size)
        kind, problems = "cardinality", layer.rows * -(-layer.cols // size)
    gram = gram_bytes(run, layer) if decides_layers(config) else 0
    seconds = seconds_of_layer(run, layer, probe)
    return LayerPlan(layer.name, layer.shape, kept, problems, size, kind, gram, seconds)
