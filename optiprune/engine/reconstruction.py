"""Objective 1: prune layer by layer so that each layer's outputs on calibration data stay.

Layers are decided in the order in which they run. With ``curvature.inputs = "pruned"`` each layer
sees the inputs that the pruned layers before it produce and aims at the dense model's outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor, nn

from optiprune.config import Config
from optiprune.curvature.data import CalibrationSet
from optiprune.curvature.layers import PrunableLayer
from optiprune.curvature.stages import LayerWalk
from optiprune.solvers import Solver, Stop

from .crew import Crew
from .damping import fold
from .errors import RunInterruptedError
from .layer_by_layer import LayerByLayer, Progress, rows_share
from .reconstruction_result import LayerErrors, ReconstructionResult, RowBlockRecord
from .steps import NoSteps, StepStore
from .stored_layers import StoredLayers
from .window_tuning import tunes_windows

__all__ = ["LayerErrors", "ReconstructionResult", "RowBlockRecord", "reconstruct"]


def reconstruct(
    model: nn.Module,
    layers: Sequence[PrunableLayer],
    masks: Mapping[str, Tensor],
    train: CalibrationSet,
    holdout: CalibrationSet | None,
    config: Config,
    solver: Solver,
    seed: np.random.SeedSequence,
    progress: Progress | None = None,
    *,
    stop: Stop | None = None,
    dense: Mapping[str, Tensor] | None = None,
    steps: StepStore | None = None,
    crew: Crew | None = None,
) -> ReconstructionResult:
    """Choose masks (and values) that keep every layer's output, starting from given masks.

    Every row keeps as many weights as its first mask does (every group of M, with a pattern, but
    for layers with a sparsity of their own). A
    row's new mask stays if it lowers the error on ``train`` and does not raise it on ``holdout`` by
    more than ``config.accept.tolerance``; the same holds for its refit.

    Parameters
    ----------
    masks : parameter name -> bool tensor in the parameter's shape, for every layer
    holdout : samples that judge; None accepts on ``train`` alone
    solver : takes `CardinalityQP`
    seed : children are derived by layer, sweep and row, so that the outcome does not depend on
        ``config.workers``
    progress : called with the record of every block of rows, once a round over the layer is judged
    stop : holds for each problem
    dense : weights to restore and to imitate, in place of the model's own
    steps : every layer is kept there when it is decided, and taken from there if it was
    crew : decides layers that do not wait for one another; None: this process does, one by one

    The model is not changed.

    Raises
    ------
    CalibrationError
        From the calibration data, see `LayerWalk`.
    LayerError
        A mask that is missing or has another shape; a pattern that does not fit.
    StepFailedError
        The solver raised, or returned something that is not a solution; ``partial`` holds a
        `ReconstructionResult` up to the round before: first masks for layers not reached, values
        and reports for layers that were finished.
    RunInterruptedError
        Ctrl-C, also when a solver caught it; ``partial`` as for `StepFailedError`.
    UnsupportedProblemError
        The solver does not take `CardinalityQP`.
    """
    store = StoredLayers(steps or NoSteps())
    own = dict(model.named_parameters())
    given = dense or own
    wanted = {
        layer.parameter: given.get(layer.parameter, own[layer.parameter]).detach()
        for layer in layers
    }
    fits = fold(train, config, seed)
    weights = dict(wanted)
    deciding = LayerByLayer(
        layers,
        masks,
        wanted,
        len(fits),
        weights,
        config,
        solver,
        seed,
        rows_share(config, sum(layer.rows for layer in layers)),
        store,
        progress=progress,
        stop=stop,
        crew=crew,
    )
    curvature = config.curvature
    walk = LayerWalk(
        model,
        layers,
        wanted,
        fits if holdout is None else [*fits, holdout],
        curvature.chunk,
        curvature.inputs,
        curvature.positions,
        deciding.tune if tunes_windows(config) else None,
        store.known(layers),
        weights,
    )
    try:
        deciding.decide(walk)
    except KeyboardInterrupt as e:
        raise RunInterruptedError("interrupted", deciding.result) from e
    return deciding.result
