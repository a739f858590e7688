"""Re-fit the kept weights of every layer, in forward order, after a global search."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from optiprune.config import Config
from optiprune.curvature import CalibrationSet, PrunableLayer
from optiprune.curvature.gram import LayerGram
from optiprune.curvature.stages import LayerWalk
from optiprune.refit import refit_rows

from .damping import choose_damping, fold
from .state import WeightState

__all__ = ["LayerRefit", "refit_state"]


@dataclass(frozen=True, slots=True)
class LayerRefit:
    """What re-fitting did to one layer.

    Attributes
    ----------
    layer : its name
    error_before, error_after : squared output error a position, summed over rows
    loss : held-out loss after it, or None
    accepted : whether the new values stayed
    damping : of the layer, given or chosen
    raised : largest damping that a row needed
    seconds : wall-clock time
    """

    layer: str
    error_before: float
    error_after: float
    loss: float | None
    accepted: bool
    damping: float
    raised: float
    seconds: float


def refit_state(
    model: nn.Module,
    state: WeightState,
    train: CalibrationSet,
    config: Config,
    loss: Callable[[], float] | None,
) -> list[LayerRefit]:
    """Least squares on the support of every row, the dense outputs as targets.

    Inputs come from the pruned layers before (``curvature.inputs = 'pruned'``), so that a layer
    makes up for what those before it lost. A layer whose new values raise ``loss`` (held-out loss
    at ``state``; None accepts all) keeps the old ones.
    """
    index = {layer.name: i for i, layer in enumerate(state.layers)}
    best = None if loss is None else loss()
    curvature = config.curvature
    parts = fold(train, config, np.random.SeedSequence(config.seed, spawn_key=(3,)))
    walk = LayerWalk(
        model,
        state.layers,
        state.dense_weights(),
        parts,
        curvature.chunk,
        curvature.inputs,
        curvature.positions,
    )
    walk.weights.update(state.weights())
    out = []
    began = time.perf_counter()
    for stage in walk:
        for layer in stage.layers:
            grams = [found[layer.name] for found in stage.grams]
            fit, best = _refit_layer(state, index[layer.name], layer, grams, config, loss, best)
            walk.weights[layer.parameter] = state.layer_weights(index[layer.name])
            out.append(replace(fit, seconds=time.perf_counter() - began))
            began = time.perf_counter()
    return out


def _refit_layer(
    state: WeightState,
    i: int,
    layer: PrunableLayer,
    grams: Sequence[LayerGram],
    config: Config,
    loss: Callable[[], float] | None,
    best: float | None,
) -> tuple[LayerRefit, float | None]:
    """What one refit did, its seconds not yet known, and the held-out loss after it."""
    span, shape = state.span(i), (layer.rows, layer.cols)
    device = grams[0].H.device
    dense = torch.from_numpy(state.dense[span]).reshape(shape).double().to(device)
    mask = torch.from_numpy(state.mask[span]).reshape(shape).to(device)
    values = torch.from_numpy(state.values[span]).reshape(shape).double().to(device)
    gram, damping = choose_damping(grams, dense, mask, config)
    fit = refit_rows(
        gram.H,
        gram.cross(dense),
        gram.target_energy(dense),
        mask,
        values,
        damping,
        tolerance=config.refit.tolerance,
    )
    old = state.values.copy()
    accepted = False
    try:
        state.set_values({layer.parameter: fit.values.reshape(layer.shape)})
        now = None if loss is None else loss()
        accepted = best is None or now is None or now <= best + config.accept.tolerance
    finally:
        if not accepted:  # also when the loss could not be measured, or on Ctrl-C
            state.values = old
    record = LayerRefit(
        layer=layer.name,
        error_before=float(fit.error_before.sum()),
        error_after=float(fit.error_after.sum()),
        loss=now,
        accepted=accepted,
        damping=damping,
        raised=float(fit.damping.max()) if fit.damping.numel() else damping,
        seconds=0.0,
    )
    return record, now if accepted and now is not None else best
