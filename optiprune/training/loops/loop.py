"""A small training loop: any torch optimizer and scheduler, resumed bit for bit."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from optiprune.curvature import Batch, CalibrationSet
from optiprune.curvature.inputs import arguments_of, device_of
from optiprune.curvature.losses import LossFunction, resolve_loss
from optiprune.curvature.runner import seed_generators
from optiprune.engine.identity import data_hash, state_hash
from optiprune.training.errors import TrainingError
from optiprune.training.samples import samples_of

from .callback import Callback, Step
from .checkpoint import check_run, load_checkpoint, save_checkpoint
from .progress import TrainingProgress

__all__ = ["Augment", "TrainReport", "steps_per_epoch", "train"]

Augment = Callable[[Any, torch.Generator], Any]
Scheduler = LRScheduler | ReduceLROnPlateau
# branches of the one seed
_ORDER, _NOISE, _AUGMENT = range(3)


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What `train` returns.

    Attributes
    ----------
    losses : mean loss of every epoch, callbacks' terms included
    steps : in all
    resumed_at : the step that a checkpoint let this call begin with; 0 for none
    """

    losses: tuple[float, ...]
    steps: int
    resumed_at: int


def train(
    model: nn.Module,
    data: Iterable[Any],
    optimizer: Optimizer,
    *,
    epochs: int,
    batch_size: int = 128,
    scheduler: Scheduler | None = None,
    schedule: Literal["step", "epoch"] = "step",
    loss: str | LossFunction | None = "auto",
    callbacks: Sequence[Callback] = (),
    augment: Augment | None = None,
    clip_norm: float | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_steps: int | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> TrainReport:
    """Train a model in place.

    The order of the samples, augmentation and what random layers draw come from ``seed`` alone:
    torch's global random state is neither read nor changed. With a checkpoint, a run that was
    killed goes on when it is called again, and on one thread ends with the same weights, bit for
    bit; one that had ended gives its result at once.

    Parameters
    ----------
    model : on one device; its modules keep their training or evaluation mode
    data : as for `optiprune.optimize_masks`; held in memory
    optimizer : of the model's parameters, and of those of the callbacks
    epochs, batch_size : passes over the data, samples a step; a last batch of one sample is left
        out, since batch norm cannot take it
    scheduler, schedule : stepped after every step or every epoch; `ReduceLROnPlateau` gets the
        epoch's mean loss
    loss : as for `optiprune.optimize_masks`, or None: the callbacks' terms alone
    callbacks : terms of the loss and what happens after steps; masks are kept by
        `optiprune.masks.keep_masked` on the optimizer
    augment : (inputs, generator on the CPU) -> inputs
    clip_norm : largest norm of the gradient
    checkpoint, checkpoint_steps : file, and how often it is written; None: after every epoch
    progress : show a progress line; by default only on a terminal

    Raises
    ------
    TrainingError
        Options out of range, a checkpoint of another run, an optimizer without the model's
        parameters, a loss or gradient that is not finite: the model is as before that step.
    CalibrationError
        Unfit data, or labels are missing.
    """
    _check(epochs, batch_size, clip_norm, checkpoint_steps, scheduler, schedule)
    device, samples = device_of(model), samples_of(model, data)
    task = None if loss is None else resolve_loss(loss, next(iter(samples.batches(1))).targets)
    names = [c.name for c in callbacks]
    if len(set(names)) < len(names):
        raise TrainingError(
            f"callbacks {names} have one name: their states could not be told apart"
        )
    _check_optimizer(model, optimizer, callbacks)
    per_epoch = steps_per_epoch(samples, batch_size)
    total = epochs * per_epoch
    if epochs and not per_epoch:
        raise TrainingError(f"{samples.n} samples make no step")
    run = {
        "epochs": epochs,
        "batch_size": batch_size,
        "samples": samples.n,
        "seed": seed,
        "optimizer": _plain(optimizer),
        "scheduler": f"{type(scheduler).__name__} {_state_text(scheduler)}",
        "schedule": schedule,
        "loss": loss if isinstance(loss, str) else getattr(loss, "__name__", repr(type(loss))),
        "clip_norm": clip_norm,
        "callbacks": {c.name: json.dumps(c.settings()) for c in callbacks},
        "weights at the start": state_hash(model) if checkpoint is not None else "",
        "contents of the samples": data_hash(samples) if checkpoint is not None else "",
    }
    state = _State(model, optimizer, scheduler, callbacks)
    file = None if checkpoint is None else Path(checkpoint)
    if file is not None and file.exists():
        found, content = load_checkpoint(file, device)
        check_run(file, found, run)
        state.load(content)
    resumed_at = state.step
    every = checkpoint_steps or per_epoch
    cuda = [device] if device.type == "cuda" else []
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=cuda))
        line = stack.enter_context(TrainingProgress(progress, total))
        for c in callbacks:
            stack.enter_context(c.attached())
        for epoch in range(state.step // per_epoch, epochs):
            for i, batch in enumerate(_batches(samples, batch_size, seed, epoch)):
                if epoch * per_epoch + i < state.step:
                    continue
                seed_generators(_draw(seed, _NOISE, state.step), cuda)
                value = _one_step(
                    state, batch, epoch, total, task, augment, clip_norm, seed, scheduler, schedule
                )
                state.sum += value
                state.step += 1
                if state.step % per_epoch == 0:
                    state.losses.append(state.sum / per_epoch)
                    state.sum = 0.0
                    if scheduler is not None and schedule == "epoch":
                        _epoch_ends(scheduler, state.losses[-1])
                line.show(state.step, epoch, value)
                if file is not None and (state.step % every == 0 or state.step == total):
                    save_checkpoint(file, run, state.content())
    return TrainReport(tuple(state.losses), total, resumed_at)


class _State:
    """Everything that a step changes."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        scheduler: Scheduler | None,
        callbacks: Sequence[Callback],
    ) -> None:
        self.model, self.optimizer = model, optimizer
        self.scheduler, self.callbacks = scheduler, callbacks
        self.step, self.losses, self.sum = 0, list[float](), 0.0

    def content(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "losses": list(self.losses),
            "sum": self.sum,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "callbacks": {c.name: c.state_dict() for c in self.callbacks},
        }

    def load(self, content: Mapping[str, Any]) -> None:
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(content["scheduler"])
        for c in self.callbacks:
            c.load_state_dict(content["callbacks"][c.name])
        self.step, self.sum = content["step"], content["sum"]
        self.losses = list(content["losses"])


def _plain(optimizer: Optimizer) -> str:
    groups = [
        {k: repr(v) for k, v in g.items() if k != "params"} | {"size": len(g["params"])}
        for g in optimizer.param_groups
    ]
    return f"{type(optimizer).__name__} {groups}"


def _state_text(scheduler: Scheduler | None) -> str:
    """What its state says at the start; functions, which have no lasting name, left out."""
    state = {} if scheduler is None else scheduler.state_dict()
    return str({k: v for k, v in state.items() if isinstance(v, (int, float, str, list, dict))})


def _one_step(
    state: _State,
    batch: Batch,
    epoch: int,
    total: int,
    task: LossFunction | None,
    augment: Augment | None,
    clip_norm: float | None,
    seed: int,
    scheduler: Scheduler | None,
    schedule: str,
) -> float:
    """The loss, before the step that it leads to."""
    if augment is not None:
        generator = torch.Generator().manual_seed(_draw(seed, _AUGMENT, state.step))
        batch = Batch(augment(batch.inputs, generator), batch.targets)
    args, kwargs = arguments_of(batch.inputs)
    with _buffers_back(state.model):
        outputs = state.model(*args, **kwargs)
        step = Step(state.step, total, epoch, batch, outputs)
        terms = [] if task is None else [task(outputs, batch.targets)]
        terms += [t for c in state.callbacks if (t := c.loss(step)) is not None]
        if not terms:
            raise TrainingError("loss = None, and no callback gives one: there is nothing to train")
        loss = torch.stack([t.reshape(()) for t in terms]).sum()
        value = float(loss.detach())
        state.optimizer.zero_grad(set_to_none=True)
        if math.isfinite(value):
            loss.backward()
        _require_finite(state, value)
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(_trained(state.optimizer), clip_norm)
    state.optimizer.step()
    if scheduler is not None and schedule == "step":
        scheduler.step()
    for c in state.callbacks:
        c.after_step(step)
    return value


@contextmanager
def _buffers_back(model: nn.Module) -> Iterator[None]:
    """What a forward moved, such as statistics of batch norms, is put back if the step fails."""
    before = [b.clone() for b in model.buffers()]
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for b, old in zip(model.buffers(), before, strict=True):
                b.copy_(old)
        raise


def _require_finite(state: _State, loss: float) -> None:
    gradients = [p.grad.detach() for p in _trained(state.optimizer) if p.grad is not None]
    what = "loss"
    if math.isfinite(loss):
        if not gradients or bool(torch.isfinite(torch.stack([g.norm() for g in gradients])).all()):
            return
        what, loss = "gradient", math.nan
    state.optimizer.zero_grad(set_to_none=True)
    raise TrainingError(
        f"the {what} of step {state.step} is {loss}: the model is as it was before it; lower the "
        "learning rate, or look for what has no derivative there"
    )


def _epoch_ends(scheduler: Scheduler, loss: float) -> None:
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(loss)
    else:
        scheduler.step()


def steps_per_epoch(data: CalibrationSet, batch_size: int) -> int:
    return sum(1 for _ in _batches(data, batch_size, 0, 0))


def _batches(data: CalibrationSet, size: int, seed: int, epoch: int) -> Iterator[Batch]:
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_ORDER, epoch)))
    for batch, _ in data.minibatches(size, rng):
        # the rest of joined samples, which batch norm could not take
        rest = batch.n == 1 and size > 1 and data.joined and data.n > 1
        if not rest:
            yield batch


def _draw(seed: int, branch: int, step: int) -> int:
    return int(np.random.SeedSequence(seed, spawn_key=(branch, step)).generate_state(1)[0])


def _trained(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _check(
    epochs: int,
    batch_size: int,
    clip_norm: float | None,
    checkpoint_steps: int | None,
    scheduler: Scheduler | None,
    schedule: str,
) -> None:
    if epochs < 0 or batch_size < 1:
        raise TrainingError(f"epochs = {epochs} must be >= 0, batch_size = {batch_size} >= 1")
    if clip_norm is not None and not clip_norm > 0:
        raise TrainingError(f"clip_norm = {clip_norm} must be above 0, or None")
    if checkpoint_steps is not None and checkpoint_steps < 1:
        raise TrainingError(f"checkpoint_steps = {checkpoint_steps} must be >= 1, or None")
    if schedule not in ("step", "epoch"):
        raise TrainingError(f"schedule {schedule!r}: there are 'step' and 'epoch'")
    if isinstance(scheduler, ReduceLROnPlateau) and schedule == "step":
        raise TrainingError("ReduceLROnPlateau needs schedule = 'epoch': it looks at mean losses")


def _check_optimizer(model: nn.Module, optimizer: Optimizer, callbacks: Sequence[Callback]) -> None:
    held = {id(p) for p in _trained(optimizer)}
    if not any(id(p) in held for p in model.parameters()):
        raise TrainingError(
            f"{type(optimizer).__name__} holds none of the model's parameters; was it made for "
            "another copy of the model?"
        )
    for c in callbacks:
        if any(id(p) not in held for p in c.parameters()):
            raise TrainingError(
                f"{type(optimizer).__name__} does not hold the parameters of {c.name}; make it "
                "of [*model.parameters(), *callback.parameters()]"
            )
