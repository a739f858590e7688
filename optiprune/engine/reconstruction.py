"""Objective 1: prune layer by layer so that each layer's outputs on calibration data stay.

Layers are decided in the order in which they run. With ``curvature.inputs = "pruned"`` each layer
sees the inputs that the pruned layers before it produce and aims at the dense model's outputs.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

import numpy as np
import torch
from torch import Tensor, nn

from optiprune.config import Config
from optiprune.curvature.chain import ChainBlock
from optiprune.curvature.data import CalibrationSet
from optiprune.curvature.gram import LayerGram
from optiprune.curvature.layers import LayerError, PrunableLayer
from optiprune.curvature.stages import LayerWalk, Stage, Window
from optiprune.executors import Task, WorkerLostError
from optiprune.solvers import Solver, Stop

from .block_search import check_block_mask
from .budgets import block_of, pattern_of
from .crew import Crew, StageTasks
from .damping import fold
from .errors import RunInterruptedError, StepFailedError
from .layer_decision import LayerDecision
from .layer_job import LayerJob, LayerOutcome
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
        ``config.workers``, nor on who decides the layers
    progress : called with the record of every block of rows, once a round over the layer is judged,
        or once the layer is decided where a ``crew`` does it
    stop : holds for each problem
    dense : weights to restore and to imitate, in place of the model's own
    steps : every layer is kept there when it is decided, and taken from there if it was
    crew : workers that decide layers side by side, all of them with ``curvature.inputs = "dense"``
        and those of a stage with "pruned"; None decides one by one in this process

    The model is not changed.

    Raises
    ------
    CalibrationError
        From the calibration data, see `LayerWalk`.
    LayerError
        A mask that is missing or has another shape; a pattern that does not fit.
    StepFailedError
        The solver raised, or returned something that is not a solution; or a layer lost its worker
        too often. ``partial`` holds a
        `ReconstructionResult` up to the round before: first masks for layers not reached, values
        and reports for layers that were finished.
    RunInterruptedError
        Ctrl-C, also when a solver caught it; ``partial`` as for `StepFailedError`.
    UnsupportedProblemError
        The solver does not take `CardinalityQP`.
    """
    store = StoredLayers(steps or NoSteps())
    run = _Run(
        model,
        layers,
        masks,
        train,
        holdout,
        config,
        solver,
        seed,
        progress,
        stop,
        dense,
        store,
        crew,
    )
    try:
        return run.all_layers()
    except KeyboardInterrupt as e:
        raise RunInterruptedError("interrupted", run.result) from e


@dataclass(frozen=True, slots=True)
class _Begun:
    """A layer whose turn has come: decided before, or handed to the crew."""

    layer: PrunableLayer
    gram_s: float
    known: bool


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
        crew: Crew | None,
    ) -> None:
        self.store, self.crew = store, crew
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
        if self.crew is None:
            self._one_by_one()
        elif self.config.curvature.inputs == "dense":
            self._side_by_side(self.crew, self.walk, count())
        else:
            numbers = count()
            for stage in self.walk:
                self._side_by_side(self.crew, [stage], numbers)
        return self.result

    def _one_by_one(self) -> None:
        number, began = 0, time.perf_counter()
        for stage in self.walk:
            each = (time.perf_counter() - began) / len(stage.layers)
            for layer in stage.layers:
                if not self._restored(layer):
                    first = len(self.result.records)
                    self._decide(self._job(number, layer), _grams(stage, layer), each)
                    self._keep(layer, first)
                number += 1
            began = time.perf_counter()

    def _side_by_side(self, crew: Crew, stages: Iterable[Stage], numbers: Iterator[int]) -> None:
        """Layers of the stages by the crew, taken over and kept in their order."""
        begun: deque[_Begun] = deque()
        outcomes = crew.decide(self._tasks(crew, stages, numbers, begun))
        try:
            for outcome in outcomes:
                self._take_restored(begun)
                one = begun.popleft()
                first = len(self.result.records)
                self._take(one, outcome)
                self._keep(one.layer, first)
            self._take_restored(begun)
        except WorkerLostError as e:
            raise StepFailedError(str(e), self.result) from e

    def _tasks(
        self, crew: Crew, stages: Iterable[Stage], numbers: Iterator[int], begun: deque[_Begun]
    ) -> Iterator[Task]:
        """One for every layer that is not decided; ``begun`` gets all layers as they are met."""
        began = time.perf_counter()
        for stage in stages:
            each = (time.perf_counter() - began) / len(stage.layers)
            tasks = StageTasks(crew)
            for layer in stage.layers:
                number, known = next(numbers), layer.name in self.walk.known
                begun.append(_Begun(layer, each, known))
                if not known:
                    yield tasks.task(self._job(number, layer), _grams(stage, layer))
            began = time.perf_counter()

    def _take_restored(self, begun: deque[_Begun]) -> None:
        while begun and begun[0].known:
            self._restored(begun.popleft().layer)

    def _take(self, one: _Begun, outcome: LayerOutcome) -> None:
        """Take over what a worker decided."""
        layer, name = one.layer, one.layer.parameter
        dense = self.dense[name]
        self.result.masks[name] = outcome.mask.reshape(layer.shape).to(dense.device)
        for record in outcome.records:
            self._report(record)
        if outcome.failure is not None:
            if isinstance(outcome.failure, StepFailedError):
                outcome.failure.partial = self.result
            raise outcome.failure
        assert outcome.values is not None
        assert outcome.errors is not None
        values = outcome.values.reshape(layer.shape).to(dense.device)
        self._decided(layer, values, outcome.errors, one.gram_s)

    def _keep(self, layer: PrunableLayer, first: int) -> None:
        """A step of the journal; the layer's records begin at number ``first``."""
        self.store.put(layer, self.result, first)
        self.store.steps.check()

    def _job(self, number: int, layer: PrunableLayer) -> LayerJob:
        name, seed = layer.parameter, self.seed
        return LayerJob(
            layer=layer,
            w=self.dense[name].reshape(layer.rows, layer.cols).contiguous(),
            mask=self.result.masks[name].reshape(layer.rows, layer.cols).contiguous(),
            parts=self.fits,
            config=self.config,
            solver=self.solver,
            stop=self.stop,
            seed=np.random.SeedSequence(entropy=seed.entropy, spawn_key=(*seed.spawn_key, number)),
            share=self.share,
        )

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

    def _decide(self, job: LayerJob, grams: Sequence[LayerGram], gram_s: float) -> None:
        """Mask and values of the layer; what is reached counts also where it ends early."""
        layer, name = job.layer, job.layer.parameter
        decision = LayerDecision(
            layer,
            grams[: job.parts],
            grams[job.parts] if len(grams) > job.parts else None,
            job.w.to(torch.float64),
            job.mask,
            job.config,
            job.solver,
            job.stop,
            job.seed,
            job.share,
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
        self._decided(layer, values, decided.errors, gram_s)

    def _decided(
        self, layer: PrunableLayer, values: Tensor, errors: LayerErrors, gram_s: float
    ) -> None:
        self.walk.weights[layer.parameter] = values
        if self.result.values is not None:
            self.result.values[layer.parameter] = values
        self.result.layers.append(replace(errors, gram_s=gram_s))

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


def _grams(stage: Stage, layer: PrunableLayer) -> list[LayerGram]:
    """Of every calibration set."""
    return [found[layer.name] for found in stage.grams]
