"""Objective 1: prune layer by layer so that each layer's outputs on calibration data stay.

Layers are decided in the order in which they run. With ``curvature.inputs = "pruned"`` each layer
sees the inputs that the pruned layers before it produce and aims at the dense model's outputs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from optiprune.config import Config
from optiprune.curvature.chain import ChainBlock
from optiprune.curvature.data import CalibrationSet
from optiprune.curvature.gram import LayerGram
from optiprune.curvature.layers import LayerError, PrunableLayer
from optiprune.curvature.stages import LayerWalk, Window
from optiprune.solvers import Solver, Stop

from .block_search import check_block_mask
from .budgets import block_of, pattern_of
from .damping import fold
from .errors import RunInterruptedError, StepFailedError
from .layer_decision import LayerDecision
from .reconstruction_result import LayerErrors, ReconstructionResult, RowBlockRecord
from .row_blocks import Judged, row_blocks
from .row_search import check_pattern_mask
from .steps import NoSteps, StepStore
from .stored_layers import StoredLayers
from .window_tuning import WindowReport, tune_window

__all__ = ["LayerErrors", "ReconstructionResult", "RowBlockRecord", "reconstruct"]

Progress = Callable[[RowBlockRecord], None]


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
    run = _Run(
        model, layers, masks, train, holdout, config, solver, seed, progress, stop, dense, store
    )
    try:
        return run.all_layers()
    except KeyboardInterrupt as e:
        raise RunInterruptedError("interrupted", run.result) from e


class _Run:
    """The state of one call of `reconstruct`."""

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[PrunableLayer],
        masks: Mapping[str, Tensor],
        train: CalibrationSet,
        holdout: CalibrationSet | None,
        config: Config,
        solver: Solver,
        seed: np.random.SeedSequence,
        progress: Progress | None,
        stop: Stop | None,
        dense: Mapping[str, Tensor] | None,
        store: StoredLayers,
    ) -> None:
        self.store = store
        self.config, self.solver, self.seed, self.progress = config, solver, seed, progress
        self.stop = stop
        own = dict(model.named_parameters())
        self.dense = {
            layer.parameter: (dense or own).get(layer.parameter, own[layer.parameter]).detach()
            for layer in layers
        }
        first = {layer.parameter: _checked_mask(layer, masks) for layer in layers}
        for layer in layers:
            rows = first[layer.parameter].reshape(layer.rows, layer.cols)
            check_pattern_mask(layer, rows.cpu().numpy(), pattern_of(layer, config))
            check_block_mask(layer, rows.cpu().numpy(), block_of(layer, config))
        fits = fold(train, config, seed)
        self.fits = len(fits)
        sets = fits if holdout is None else [*fits, holdout]
        curvature = config.curvature
        self.walk = LayerWalk(
            model,
            layers,
            self.dense,
            sets,
            curvature.chunk,
            curvature.inputs,
            curvature.positions,
            self._window if config.prune.refit and config.window.epochs else None,
            store.known(layers),
        )
        self.share = min(1.0, config.joint.rows / max(1, sum(layer.rows for layer in layers)))
        self.result = ReconstructionResult(first, {} if config.prune.refit else None)

    def all_layers(self) -> ReconstructionResult:
        number, began = 0, time.perf_counter()
        for stage in self.walk:
            each = (time.perf_counter() - began) / len(stage.layers)
            for layer in stage.layers:
                if not self._restored(layer):
                    grams = [found[layer.name] for found in stage.grams]
                    held = grams[self.fits] if len(grams) > self.fits else None
                    first = len(self.result.records)
                    self._decide(number, layer, grams[: self.fits], held, each)
                    self.store.put(layer, self.result, first)
                    self.store.steps.check()
                number += 1
            began = time.perf_counter()
        return self.result

    def _restored(self, layer: PrunableLayer) -> bool:
        """Whether the layer was decided before, and is now what it was then."""
        found = self.store.get(layer, self.dense[layer.parameter])
        if found is None:
            return False
        mask, values, errors, records = found
        self.walk.weights[layer.parameter] = values
        self.result.masks[layer.parameter] = mask
        if self.result.values is not None:
            self.result.values[layer.parameter] = values
        self.result.layers.append(errors)
        for record in records:
            self._report(record)
        return True

    def _window(self, block: ChainBlock, windows: Sequence[Window]) -> None:
        """Tune the block's kept weights toward the dense block's output."""
        values = self.result.values
        if len(block.layers) < 2 or values is None:
            return
        found = self.store.window(block, values)
        if found is not None:
            tuned, report = found
        else:
            tuned, report = self._tuned(block, windows)
            self.store.put_window(block, tuned, report)
        self.result.windows.append(report)
        if report.kept:
            self.walk.weights.update(tuned)
            values.update(tuned)
        self.store.steps.check()

    def _tuned(
        self, block: ChainBlock, windows: Sequence[Window]
    ) -> tuple[dict[str, Tensor], WindowReport]:
        held = windows[self.fits] if len(windows) > self.fits else None
        key = (*self.seed.spawn_key, len(self.result.layers), 1, 0, 0)
        seed = np.random.SeedSequence(entropy=self.seed.entropy, spawn_key=key)
        options, masks = self.config.window, self.result.masks
        train = windows[: self.fits]
        return tune_window(block, train, self.walk.weights, masks, options, seed, holdout=held)

    def _decide(
        self,
        number: int,
        layer: PrunableLayer,
        grams: Sequence[LayerGram],
        held: LayerGram | None,
        gram_s: float,
    ) -> None:
        """Mask and values of the layer; what is reached counts also where it ends early."""
        name = layer.parameter
        decision = LayerDecision(
            layer,
            grams,
            held,
            self.dense[name].to(torch.float64).reshape(layer.rows, layer.cols),
            self.result.masks[name].reshape(layer.rows, layer.cols),
            self.config,
            self.solver,
            self.stop,
            np.random.SeedSequence(
                entropy=self.seed.entropy, spawn_key=(*self.seed.spawn_key, number)
            ),
            self.share,
            partial(self._record, layer),
        )
        try:
            decided = decision.run()
        except StepFailedError as e:
            e.partial = self.result
            raise
        finally:
            self.result.masks[name] = decision.mask.reshape(layer.shape)
        values = decided.values.reshape(layer.shape).to(self.dense[name].dtype)
        self.walk.weights[name] = values
        if self.result.values is not None:
            self.result.values[name] = values
        self.result.layers.append(replace(decided.errors, gram_s=gram_s))

    def _record(
        self, layer: PrunableLayer, judged: Judged, sweep: int, turn: int, wall_s: float
    ) -> None:
        for record in row_blocks(judged, layer.name, sweep, turn, self.solver.name, wall_s):
            self._report(record)

    def _report(self, record: RowBlockRecord) -> None:
        self.result.records.append(record)
        if self.progress is not None:
            self.progress(record)


def _checked_mask(layer: PrunableLayer, masks: Mapping[str, Tensor]) -> Tensor:
    mask = masks.get(layer.parameter)
    if mask is None:
        raise LayerError(f"no first mask for '{layer.parameter}'")
    if tuple(mask.shape) != layer.shape or mask.dtype != torch.bool:
        raise LayerError(
            f"the mask of '{layer.parameter}' must be bool of shape {layer.shape}, got "
            f"{mask.dtype} of {tuple(mask.shape)}"
        )
    return mask.detach().clone()
