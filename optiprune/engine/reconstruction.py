"""Objective 1: prune layer by layer so that each layer's outputs on calibration data stay.

Layers are decided in the order in which they run. With ``curvature.inputs = "pruned"`` each layer
sees the inputs that the pruned layers before it produce and aims at the dense model's outputs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from optiprune.config import Config
from optiprune.curvature.chain import ChainBlock
from optiprune.curvature.data import CalibrationSet
from optiprune.curvature.gram import LayerGram
from optiprune.curvature.layers import LayerError, PrunableLayer
from optiprune.curvature.stages import LayerWalk, Window
from optiprune.patterns import Block
from optiprune.problems import MIQP
from optiprune.refit import RefitResult
from optiprune.solvers import Solver, Stop, UnsupportedProblemError

from .block_search import BlockSearch, check_block_mask, within_blocks
from .budgets import block_of, pattern_of
from .damping import choose_damping, fold
from .errors import RunInterruptedError, StepFailedError
from .joint_search import JointSearch, within_budgets
from .mask_search import MaskSearch
from .reconstruction_result import LayerErrors, ReconstructionResult, RowBlockRecord
from .row_blocks import ROUNDING, Judged, row_blocks
from .row_search import check_pattern_mask
from .steps import NoSteps, StepStore
from .stored_layers import StoredLayers
from .window_tuning import WindowReport, tune_window

__all__ = ["LayerErrors", "ReconstructionResult", "RowBlockRecord", "reconstruct"]

Bools = npt.NDArray[np.bool_]
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
                    began = len(self.result.records)
                    self._layer(number, layer, grams[: self.fits], held, each)
                    self.store.put(layer, self.result, began)
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

    def _tuned(
        self, block: ChainBlock, windows: Sequence[Window]
    ) -> tuple[dict[str, Tensor], WindowReport]:
        held = windows[self.fits] if len(windows) > self.fits else None
        key = (*self.seed.spawn_key, len(self.result.layers), 1, 0, 0)
        seed = np.random.SeedSequence(entropy=self.seed.entropy, spawn_key=key)
        options, masks = self.config.window, self.result.masks
        train = windows[: self.fits]
        return tune_window(block, train, self.walk.weights, masks, options, seed, holdout=held)

    def _layer(
        self,
        number: int,
        layer: PrunableLayer,
        grams: Sequence[LayerGram],
        held: LayerGram | None,
        gram_s: float,
    ) -> None:
        start = time.perf_counter()
        shape = (layer.rows, layer.cols)
        weight = self.dense[layer.parameter]
        w = weight.to(torch.float64).reshape(shape)
        first = self.result.masks[layer.parameter].reshape(shape)
        fit: RefitResult | None = None
        gram, damping = choose_damping(grams, w, first, self.config)
        block = block_of(layer, self.config)
        if block is not None:
            blocks = self._blocks(number, layer, gram, held, w, block, damping)
            mask, refit_s = blocks.mask, blocks.refit_s
            fit = blocks.fit if self.config.prune.refit else None
            search_s = time.perf_counter() - start - refit_s
        elif not self.config.prune.refit:
            mask = self._search(number, layer, gram, held, w)
            search_s, refit_s = time.perf_counter() - start, 0.0
        else:
            joint = self._joint(number, layer, gram, held, w, damping)
            mask, fit = joint.mask, joint.fit
            refit_s = joint.refit_s
            search_s = time.perf_counter() - start - refit_s
        masked = torch.where(mask, w, 0.0)
        values, rejected = masked, 0
        if fit is not None:
            values = fit.values
            if held is not None:
                rise = held.error(values, w) - held.error(masked, w)
                undo = rise > self.config.accept.tolerance + ROUNDING * held.target_energy(w)
                values = torch.where(undo[:, None], masked, values)
                rejected = int(undo.sum())
        failed = 0 if fit is None else int(fit.failed.sum())
        damped = 0 if fit is None else int(fit.raised.sum())
        final = values.reshape(layer.shape).to(weight.dtype)
        self.walk.weights[layer.parameter] = final
        if self.result.values is not None:
            self.result.values[layer.parameter] = final

        def error(g: LayerGram | None, rows: Tensor) -> float | None:
            return None if g is None else float(g.error(rows, w).sum())

        before = torch.where(first, w, 0.0)
        refit = self.config.prune.refit
        if fit is not None and rejected == 0 and not bool(mask.all()):
            # measured by the refit, up to rounding: where all stays, they have to be 0
            masked_error = float(fit.error_before.sum())
            refitted_error = float(fit.error_after.sum())
        else:
            masked_error = float(gram.error(masked, w).sum())
            refitted_error = float(gram.error(values, w).sum()) if refit else masked_error
        self.result.layers.append(
            LayerErrors(
                layer=layer.name,
                parameter=layer.parameter,
                rows=layer.rows,
                cols=layer.cols,
                density=float(mask.double().mean()),
                changed=int((mask != first).sum()),
                target=float(gram.target_energy(w).sum()),
                initial=float(gram.error(before, w).sum()),
                masked=masked_error,
                refitted=refitted_error if refit else None,
                holdout_initial=error(held, before),
                holdout_masked=error(held, masked),
                holdout_refitted=error(held, values) if refit else None,
                damping=damping if refit else None,
                refit_failed=failed,
                refit_damped=damped,
                refit_rejected=rejected,
                gram_s=gram_s,
                search_s=search_s,
                refit_s=refit_s,
            )
        )
        self.result.masks[layer.parameter] = mask.reshape(layer.shape)

    def _joint(
        self,
        number: int,
        layer: PrunableLayer,
        gram: LayerGram,
        held: LayerGram | None,
        w: Tensor,
        damping: float,
    ) -> JointSearch:
        """The mask and its refit, chosen together where the solver and the pattern allow."""
        options = self.config.joint
        pattern = pattern_of(layer, self.config)
        # a pattern's groups are enumerated, without the solver
        subsets = pattern is not None or MIQP in self.solver.capabilities.problems
        subsets = subsets and options.enabled
        shape = (layer.rows, layer.cols)
        first = self.result.masks[layer.parameter].reshape(shape)
        if not subsets:
            first = self._search(number, layer, gram, held, w)
        search = JointSearch(gram, held, w, first, self.config, damping)
        if options.enabled and options.start == "admm":
            by_row = self.config.prune.scope == "row"
            search.start(lambda score: within_budgets(score, first, by_row, pattern))
        if subsets and (options.rounds if pattern is None else options.sweeps):
            began = time.perf_counter()
            with self._failing(lambda: f"layer '{layer.name}'"):
                seeds = self._seeds(number, 0, 0)
                judged = search.improve(self.solver, self.stop, seeds, pattern, self.share)
            self._record(judged, layer, 0, 0, time.perf_counter() - began)
        self.result.masks[layer.parameter] = search.mask.reshape(layer.shape)
        return search

    def _blocks(
        self,
        number: int,
        layer: PrunableLayer,
        gram: LayerGram,
        held: LayerGram | None,
        w: Tensor,
        block: Block,
        damping: float,
    ) -> BlockSearch:
        """The mask in whole tiles, and its refit if there is one."""
        first = self.result.masks[layer.parameter].reshape(layer.rows, layer.cols)
        search = BlockSearch(gram, held, w, first, self.config, damping)
        options = self.config.joint
        if self.config.prune.refit and options.enabled and options.start == "admm":
            by_band = self.config.prune.scope == "row"
            search.start(lambda score: within_blocks(score, first, by_band, block))
        with self._failing(lambda: f"layer '{layer.name}'"):
            rounds = search.search(
                self.solver, self.stop, lambda turn: self._seeds(number, turn, 0), block
            )
        for turn, (judged, seconds) in enumerate(rounds):
            self._record(judged, layer, turn, 0, seconds)
        return search

    def _search(
        self,
        number: int,
        layer: PrunableLayer,
        gram: LayerGram,
        held: LayerGram | None,
        w: Tensor,
    ) -> Tensor:
        """The chosen mask, (rows, cols); rounds that are over are in the result as they end."""
        first = self.result.masks[layer.parameter]
        search = MaskSearch(layer, gram, held, w, first, self.config, self.solver, self.stop)

        def where() -> str:
            return f"layer '{layer.name}', row {search.row}, sweep {search.sweep}"

        rounds = search.rounds(lambda sweep, turn: self._seeds(number, sweep, turn))
        while True:
            with self._failing(where):
                done = next(rounds, None)
            if done is None:
                return self.result.masks[layer.parameter].reshape(w.shape)
            mask = torch.from_numpy(search.mask.copy()).reshape(layer.shape)
            self.result.masks[layer.parameter] = mask.to(first.device)
            self._record(done.judged, layer, done.sweep, done.turn, done.seconds)

    def _seeds(self, *key: int) -> Callable[[int], np.random.SeedSequence]:
        """Row -> its seed in the task ``key``: the layer's number, and which round over it."""
        parent = (*self.seed.spawn_key, *key)
        return lambda row: np.random.SeedSequence(
            entropy=self.seed.entropy, spawn_key=(*parent, row)
        )

    @contextmanager
    def _failing(self, where: Callable[[], str]) -> Iterator[None]:
        """What the solver raises inside ends the run with the result so far."""
        try:
            yield
        except UnsupportedProblemError:
            raise  # a wrong choice of solver, and nothing was done yet
        except Exception as e:
            raise StepFailedError(
                f"{where()}: solver '{self.solver.name}' failed: {type(e).__name__}: {e}",
                self.result,
            ) from e

    def _record(
        self, judged: Judged, layer: PrunableLayer, sweep: int, turn: int, wall_s: float
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
