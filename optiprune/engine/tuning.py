"""A few passes of Adam over the kept weights of the whole model, with the masks fixed.

Layer by layer, every refit aims at the dense layer's own output. What the layers lose together only
the model's output shows; so the last word is a short distillation of the dense model into the
pruned one on the calibration inputs (Hinton, Vinyals and Dean 2015, arXiv:1503.02531), which needs
no labels. Pruned weights have no gradient and stay zero.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from optiprune.config import TuneOptions
from optiprune.curvature import CalibrationError, CalibrationSet, PrunableLayer
from optiprune.curvature.data import Batch
from optiprune.curvature.fisher import mean_loss
from optiprune.curvature.losses import (
    LossFunction,
    logits_of,
    loss_terms,
    resolve_loss,
)
from optiprune.curvature.runner import run_model, untouched

from .masked_adam import MaskedAdam
from .mixing import mixed
from .steps import StepStore, Stored

__all__ = ["Tuner", "TuningReport"]

_KEY = "tuning"


@dataclass(frozen=True, slots=True)
class TuningReport:
    """What the tuning did.

    Attributes
    ----------
    loss : 'kl', 'mse' or 'task'
    before : held-out loss before it; None without held-out data
    epochs : held-out loss after each pass (without held-out data the mean over the pass)
    kept : the pass that stayed, counted from 1; 0: none, the values are those before
    seconds : wall-clock time
    """

    loss: str
    before: float | None
    epochs: tuple[float, ...]
    kept: int
    seconds: float


@dataclass(slots=True)
class Tuner:
    """Tunes the values of masked weights.

    Attributes
    ----------
    dense : parameter name -> dense weights, the teacher's
    options : with numbers in place of 'auto', see `planned`
    task : the loss of `loss = 'task'`
    chunk : samples sent through the model at once; a step of more is cut
    """

    model: nn.Module
    layers: Sequence[PrunableLayer]
    dense: Mapping[str, Tensor]
    train: CalibrationSet
    holdout: CalibrationSet | None
    options: TuneOptions
    task: LossFunction | None
    chunk: int

    def loss(self) -> tuple[str, LossFunction]:
        """Name and function of the loss. Raises `CalibrationError` if the task has no targets."""
        name = self.options.loss
        if name == "task":
            if self.task is None or not self.train.has_targets:
                raise CalibrationError(
                    "tune.loss = 'task' needs batches (inputs, targets); 'kl' and 'mse' take the "
                    "dense model's outputs"
                )
            return name, self.task
        first = next(iter(self.train.batches(1)))
        if name == "auto":
            with torch.no_grad(), untouched(self.model):
                out = logits_of(run_model(self.model, self.dense, first.inputs))
            targets = first.targets
            floats = isinstance(targets, Tensor) and targets.is_floating_point()
            name = "mse" if floats or out.shape[-1] == 1 else "kl"
        return name, resolve_loss(name, ())

    def run(
        self,
        weights: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        seed: np.random.SeedSequence,
        store: StepStore | None = None,
    ) -> tuple[dict[str, Tensor], TuningReport]:
        """(parameter name -> tuned weights, what it did).

        Parameters
        ----------
        weights : masked weights, in the shape and dtype of the parameters
        masks : bool, of the same shapes
        store : the state is kept there after every pass, and what is there is gone on with

        A pass whose loss is not finite ends the tuning; what was best until then stays.
        """
        began = time.perf_counter()
        name, loss = self.loss()
        now = {
            layer.parameter: weights[layer.parameter].detach().clone().requires_grad_(True)
            for layer in self.layers
        }
        kept = {k: masks[k].to(v.device) for k, v in now.items()}
        found = None if store is None else store.get(_KEY)
        if found is None:
            before = self._held_out(now, loss, name)
            reached = _Reached(before, math.inf if before is None else before)
        else:
            reached = _Reached(**found.record["reached"])
        best = {k: weights[k].detach() for k in now}
        with untouched(self.model):
            steps = _Steps(self, now, kept, loss, name, seed)
            if found is not None:
                best = steps.load(found, best)
            for epoch in range(len(reached.losses) + 1, int(self.options.epochs) + 1):
                mean = steps.epoch()
                value = self._held_out(now, loss, name) if math.isfinite(mean) else math.inf
                reached.losses.append(mean if value is None else value)
                if not math.isfinite(reached.losses[-1]):
                    break
                if value is None or value < reached.lowest:
                    reached.lowest, reached.chosen = reached.losses[-1], epoch
                    # all of a pass before is freed first: a copy of a large model is gigabytes
                    best = {}
                    best = {k: v.detach().clone() for k, v in now.items()}
                reached.seconds += time.perf_counter() - began
                began = time.perf_counter()
                if store is not None:
                    store.put(_KEY, *steps.state(reached, best))
                    store.check()
        reached.seconds += time.perf_counter() - began
        losses = tuple(reached.losses)
        return best, TuningReport(name, reached.before, losses, reached.chosen, reached.seconds)

    def _held_out(self, now: Mapping[str, Tensor], loss: LossFunction, name: str) -> float | None:
        if self.holdout is None:
            return None
        weights = {k: v.detach() for k, v in now.items()}
        if not all(bool(torch.isfinite(v).all()) for v in weights.values()):
            return math.inf
        dense = None if name == "task" else self.dense
        try:
            with torch.no_grad():
                return mean_loss(
                    self.model, weights, self.holdout, loss, dense_targets=dense, chunk=self.chunk
                )
        except CalibrationError:  # it is not finite: not a fault of the data, which were tried
            return math.inf


@dataclass(slots=True)
class _Reached:
    """What the passes so far gave, as in `TuningReport`; ``lowest`` loss of the pass ``chosen``."""

    before: float | None
    lowest: float
    chosen: int = 0
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0


class _Steps:
    """The state of Adam and the order of the samples."""

    def __init__(
        self,
        tuner: Tuner,
        now: Mapping[str, Tensor],
        kept: Mapping[str, Tensor],
        loss: LossFunction,
        name: str,
        seed: np.random.SeedSequence,
    ) -> None:
        self.tuner, self.now, self.loss, self.name = tuner, now, loss, name
        self.rng = np.random.default_rng(seed)
        options = tuner.options
        rate, self.batch = float(options.learning_rate), int(options.batch)
        each = sum(1 for _ in tuner.train.batches(self.batch))
        self.adam = MaskedAdam(now, kept, rate, int(options.epochs) * each)
        self.cache = self._cached()

    def _cached(self) -> Tensor | None:
        """The dense outputs of all samples, if they are tensors that fit."""
        tuner = self.tuner
        if self.name == "task" or not tuner.train.joined or tuner.options.mix:
            return None
        one = self._teacher(next(iter(tuner.train.batches(1))))
        if one.shape[0] != 1:
            return None
        size = one.numel() * one.element_size() * tuner.train.n / 2**20
        if size > tuner.options.cache_mib:
            return None
        return torch.cat([self._teacher(batch) for batch in tuner.train.batches(tuner.chunk)])

    def _teacher(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            return logits_of(run_model(self.tuner.model, self.tuner.dense, batch.inputs))

    def state(
        self, reached: _Reached, best: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What a run needs to go on after this pass, for `load`."""
        arrays = {f"now/{k}": v for k, v in self.now.items()} | self.adam.state()
        if reached.chosen < len(reached.losses):  # else it is what is now
            arrays |= {f"best/{k}": v for k, v in best.items()}
        drawn = self.rng.bit_generator.state
        return arrays, {"reached": asdict(reached), "rng": drawn, "steps": self.adam.steps}

    def load(self, found: Stored, best: dict[str, Tensor]) -> dict[str, Tensor]:
        """Go on after the pass that was stored; the best values until then."""
        with torch.no_grad():
            for key, leaf in self.now.items():
                leaf.copy_(found.arrays[f"now/{key}"])
        self.adam.load(found.arrays, found.record["steps"])
        self.rng.bit_generator.state = found.record["rng"]
        kind = "best" if f"best/{next(iter(best))}" in found.arrays else "now"
        return {k: found.arrays[f"{kind}/{k}"].to(v.device) for k, v in best.items()}

    def epoch(self) -> float:
        """One pass; the mean loss over it."""
        total, terms = 0.0, 0
        for batch, index in self.tuner.train.minibatches(self.batch, self.rng):
            value, count = self._step(batch, index)
            if not math.isfinite(value):
                return value
            total += value * count
            terms += count
        return total / max(1, terms)

    def _step(self, batch: Batch, index: Tensor) -> tuple[float, int]:
        """The loss of a minibatch before the step, and over how many terms it is a mean."""
        total, terms = 0.0, 0
        for part, target in self._parts(batch, index):
            output = run_model(self.tuner.model, self.adam.weights(), part.inputs)
            count = loss_terms(self.loss, output, target, part.n)
            if not count:
                continue
            summed = self.loss(output, target) * count
            self.adam.add(summed)
            total += float(summed.detach())
            terms += count
        if not terms or not math.isfinite(total):
            return total, terms
        self.adam.step(terms)
        return total / terms, terms

    def _parts(self, batch: Batch, index: Tensor) -> Iterator[tuple[Batch, object]]:
        size, mix = self.tuner.chunk, self.tuner.options.mix
        if mix and self.name != "task":
            batch = mixed(batch, self.tuner.train.draw(batch, self.rng), mix, self.rng)
        for at in range(0, batch.n, size):
            part = batch.take(slice(at, at + size)) if batch.n > size else batch
            if self.name == "task":
                yield part, part.targets
            elif self.cache is not None:
                yield part, self.cache[index[at : at + size]]
            else:
                yield part, self._teacher(part)
