"""Layers decided as a walk reaches them: mask and values of each, then the block they lie in."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

import numpy as np
import torch
from torch import Tensor

from optiprune.config import Config
from optiprune.curvature.chain import ChainBlock
from optiprune.curvature.gram import LayerGram
from optiprune.curvature.layers import LayerError, PrunableLayer
from optiprune.curvature.stages import Stage, Window
from optiprune.executors import Task, WorkerLostError
from optiprune.solvers import Solver, Stop

from .block_search import check_block_mask
from .budgets import block_of, pattern_of
from .crew import Crew, StageTasks
from .errors import StepFailedError
from .layer_decision import LayerDecision
from .layer_job import LayerJob, LayerOutcome
from .reconstruction_result import LayerErrors, ReconstructionResult, RowBlockRecord
from .row_blocks import Judged, row_blocks
from .row_search import check_pattern_mask
from .stored_layers import StoredLayers
from .window_tuning import WindowReport, tune_window

__all__ = ["LayerByLayer", "Progress", "rows_share"]

Progress = Callable[[RowBlockRecord], None]


def rows_share(config: Config, rows: int) -> float:
    """Of a model with so many rows, the share that get batches of their own."""
    return min(1.0, config.joint.rows / max(1, rows))


@dataclass(frozen=True, slots=True)
class _Begun:
    """A layer whose turn has come: decided before, or handed to the crew."""

    layer: PrunableLayer
    gram_s: float
    known: bool


class LayerByLayer:
    """Decides the layers of the stages that it is given.

    Parameters
    ----------
    layers : of all stages
    masks : parameter name -> first mask, bool in the parameter's shape
    dense : parameter name -> weights to restore and to imitate
    fits : calibration sets to fit; moments of one more, if there is one, are held out
    weights : parameter name -> tensor of the pruned model, into which what is decided is written
    share : see `rows_share`
    store : every layer is kept there when it is decided, and taken from there if it was
    before : number of layers of the model that are decided before these; seeds follow from it
    stored : type that the model's weights are stored in, if it is another than they are run in;
        what is decided is rounded to it
    crew : decides layers that do not wait for one another; None: this process does, one by one

    Attributes
    ----------
    result : what was decided so far

    Raises
    ------
    LayerError
        A mask that is missing or has another shape; a pattern that does not fit.
    """

    def __init__(
        self,
        layers: Sequence[PrunableLayer],
        masks: Mapping[str, Tensor],
        dense: Mapping[str, Tensor],
        fits: int,
        weights: dict[str, Tensor],
        config: Config,
        solver: Solver,
        seed: np.random.SeedSequence,
        share: float,
        store: StoredLayers,
        *,
        progress: Progress | None = None,
        stop: Stop | None = None,
        before: int = 0,
        stored: torch.dtype | None = None,
        crew: Crew | None = None,
    ) -> None:
        first = {layer.parameter: _checked_mask(layer, masks) for layer in layers}
        for layer in layers:
            rows = first[layer.parameter].reshape(layer.rows, layer.cols)
            check_pattern_mask(layer, rows.cpu().numpy(), pattern_of(layer, config))
            check_block_mask(layer, rows.cpu().numpy(), block_of(layer, config))
        self.dense, self.fits, self.weights = dense, fits, weights
        self.config, self.solver, self.seed, self.share = config, solver, seed, share
        self.store, self.progress, self.stop = store, progress, stop
        self.before, self.stored, self.crew = before, stored, crew
        self.known = frozenset(store.known(layers))
        self._numbers = count(before)
        self.result = ReconstructionResult(first, {} if config.prune.refit else None)

    def decide(self, stages: Iterable[Stage]) -> None:
        """All layers of the stages, in their order.

        Raises
        ------
        StepFailedError
            The solver failed, or workers were lost too often; ``partial`` is `result`.
        UnsupportedProblemError
            The solver does not take the problem.
        """
        if self.crew is None:
            self._one_by_one(stages)
        elif self.config.curvature.inputs == "dense":
            self._side_by_side(self.crew, stages)
        else:
            for stage in stages:
                self._side_by_side(self.crew, [stage])

    def _one_by_one(self, stages: Iterable[Stage]) -> None:
        began = time.perf_counter()
        for stage in stages:
            each = (time.perf_counter() - began) / len(stage.layers)
            for layer in stage.layers:
                number = next(self._numbers)
                if not self._restored(layer):
                    first = len(self.result.records)
                    self._decide(self._job(number, layer), _grams(stage, layer), each)
                    self._keep(layer, first)
            began = time.perf_counter()

    def _side_by_side(self, crew: Crew, stages: Iterable[Stage]) -> None:
        """Layers of the stages by the crew, taken over and kept in their order."""
        begun: deque[_Begun] = deque()
        outcomes = crew.decide(self._tasks(crew, stages, begun))
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

    def _tasks(self, crew: Crew, stages: Iterable[Stage], begun: deque[_Begun]) -> Iterator[Task]:
        """One for every layer that is not decided; ``begun`` gets all layers as they are met."""
        began = time.perf_counter()
        for stage in stages:
            each = (time.perf_counter() - began) / len(stage.layers)
            tasks = StageTasks(crew)
            for layer in stage.layers:
                number, known = next(self._numbers), layer.name in self.known
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

    def leave(self, layer: PrunableLayer) -> None:
        """Keep the first mask and the dense weights under it: there is nothing to decide by."""
        name = layer.parameter
        values = torch.where(self.result.masks[name], self.dense[name], 0)
        self.weights[name] = values
        if self.result.values is not None:
            self.result.values[name] = values

    def _restored(self, layer: PrunableLayer) -> bool:
        """Whether the layer was decided before, and is now what it was then."""
        found = self.store.get(layer, self.dense[layer.parameter])
        if found is None:
            return False
        mask, values, errors, records = found
        self.weights[layer.parameter] = values
        self.result.masks[layer.parameter] = mask
        if self.result.values is not None:
            self.result.values[layer.parameter] = values
        self.result.layers.append(errors)
        for record in records:
            self._report(record)
        return True

    def tune(self, block: ChainBlock, windows: Sequence[Window]) -> None:
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
            self.weights.update(tuned)
            values.update(tuned)
        self.store.steps.check()

    def _tuned(
        self, block: ChainBlock, windows: Sequence[Window]
    ) -> tuple[dict[str, Tensor], WindowReport]:
        held = windows[self.fits] if len(windows) > self.fits else None
        key = (*self.seed.spawn_key, self.before + len(self.result.layers), 1, 0, 0)
        seed = np.random.SeedSequence(entropy=self.seed.entropy, spawn_key=key)
        options, masks = self.config.window, self.result.masks
        train = windows[: self.fits]
        tuned, report = tune_window(block, train, self.weights, masks, options, seed, holdout=held)
        return {k: self._rounded(v).to(v.dtype) for k, v in tuned.items()}, report

    def _rounded(self, values: Tensor) -> Tensor:
        """In the type that is stored; what is too large for it becomes its largest number."""
        if self.stored is None:
            return values
        most = torch.finfo(self.stored).max
        return values.clamp(-most, most).to(self.stored)

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
        self._decided(layer, decided.values.reshape(layer.shape), decided.errors, gram_s)

    def _decided(
        self, layer: PrunableLayer, values: Tensor, errors: LayerErrors, gram_s: float
    ) -> None:
        name = layer.parameter
        dtype = self.dense[name].dtype
        rounded = self._rounded(values.to(dtype)).to(dtype)
        self.weights[name] = rounded
        if self.result.values is not None:
            self.result.values[name] = rounded
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
