"""Train, choose what leaves, fine-tune what is left: all parts by one config, resumable."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from optiprune.curvature import CalibrationSet
from optiprune.curvature.losses import LossFunction
from optiprune.engine.identity import data_hash, state_hash
from optiprune.masks import MaskSet, keep_masked
from optiprune.structure import Plan, Structure

from .choice import Chosen, check_choice, choose
from .config import LoopSection, TrainingConfig
from .errors import TrainingError
from .loops.callback import Callback
from .loops.loop import Augment, steps_per_epoch, train
from .loops.make import make_optimizer, make_scheduler
from .rules.synthetic import SyntheticOptions, synthesize
from .samples import example_of, samples_of
from .stored import load_chosen, save_chosen
from .terms.concentration import Concentration
from .terms.distillation import Distillation
from .terms.features import FeaturePairs
from .terms.torque import Torque
from .units.known_structure import known_structure

__all__ = ["Phase", "TrainingResult", "prune_in_training"]

LoopName = Literal["train", "finetune"]
Example = tuple[tuple[Any, ...], dict[str, Any]]
# the two loops draw other orders of the samples
_SEEDS = {"train": 0, "finetune": 1_000_003}


@dataclass(frozen=True, slots=True)
class Phase:
    """One part of a run.

    Attributes
    ----------
    name, seconds : wall clock, of this process alone
    losses : mean of every epoch
    scores : what ``evaluate`` said after it
    """

    name: Literal["train", "choose", "finetune"]
    seconds: float
    losses: tuple[float, ...] = ()
    scores: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TrainingResult:
    """What `prune_in_training` returns.

    Attributes
    ----------
    model : smaller, or masked; the model that was given is as it was
    plans : units that left, one plan for each session of the learning weight; none for weights
    masks : of weights; None for units
    phases : in order
    left : share of the parameters; of the masked layers' weights for masks
    parameters, macs : before and after; multiply-adds of one sample, None for masks
    scores_before : what ``evaluate`` said of the model that was given
    decided_by : "rule" or "engine"
    concentration : of norms around the pivots before and after training, with torque
    """

    model: nn.Module
    plans: tuple[Plan, ...]
    masks: MaskSet | None
    phases: tuple[Phase, ...]
    left: float
    parameters: tuple[int, int]
    macs: tuple[float, float] | None
    scores_before: Mapping[str, float] | None
    decided_by: str
    concentration: tuple[Concentration, Concentration] | None


def prune_in_training(
    model: nn.Module,
    data: Iterable[Any],
    config: TrainingConfig,
    *,
    calibration: Iterable[Any] | Literal["synthetic"] | None = None,
    teacher: nn.Module | None = None,
    loss: str | LossFunction = "auto",
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    augment: Augment | None = None,
    folder: str | Path | None = None,
    progress: bool | None = None,
) -> TrainingResult:
    """Train a copy of a model, prune it by the config's rule, and fine-tune what is left.

    Parameters
    ----------
    model : is left as it was
    data : to train on, as for `optiprune.optimize_masks`
    config : what is done; see `TrainingConfig`
    calibration : samples that rules and the engine look at; "synthetic": made from the network;
        None: the training data
    teacher : of distillation and of the rule "features"; None: the model as it is given
    loss, augment : as for `train`
    evaluate : of a model, called before and after every phase
    folder : of checkpoints and of what was chosen: a run that was killed goes on there
    progress : show progress lines; by default only on a terminal

    Raises
    ------
    TrainingError
        Bad options, or what they lead to; the message names them.
    CalibrationError, LayerError, TraceError, GateError, ShrinkingError
        As `train`, `optiprune.optimize_masks` and `optiprune.shrinking.optimize_structure` do.
    """
    _check_loops(config)
    check_choice(config)
    work = copy.deepcopy(model)
    made = _synthetic(calibration, config)
    samples = samples_of(work, data)
    calibrated = samples
    if calibration is not None and made is None:
        calibrated = samples_of(work, calibration)
    example = example_of(samples)
    structure = known_structure(work, example) if config.choice.of == "units" else None
    if config.distillation.features:  # what does not fit is refused before anything trains
        FeaturePairs(teacher or model, work, config.distillation.features, example)
    place = None if folder is None else Path(folder)
    loops = _Loops(samples, teacher or model, config, loss, augment, place, progress)
    before = None if evaluate is None else dict(evaluate(work))
    phases: list[Phase] = []
    concentration = None
    pairs = None
    if config.train.epochs:
        torque = _torque(work, structure, example, config)
        start = None if torque is None else torque.concentration()
        phase, pairs = loops.run("train", work, [] if torque is None else [torque], None)
        phases.append(_scored(phase, work, evaluate))
        if torque is not None and start is not None:
            concentration = (start, torque.concentration())
    began = time.perf_counter()
    if made is not None:
        drawn = synthesize(work, config.synthetic.shape, made)
        calibrated = samples_of(work, [(drawn.inputs, drawn.classes)])

    def retrain(smaller: nn.Module) -> None:
        loops.run("finetune", smaller, [], None, between=True)

    def choice() -> Chosen:
        return choose(
            work,
            calibrated,
            config,
            teacher=teacher or model,
            structure=structure,
            pairs=pairs,
            retrain=retrain,
        )

    if place is None:
        chosen = choice()
    else:
        chosen = _stored(place, choice, work, calibrated, config, teacher or model, example)
    phase = Phase("choose", time.perf_counter() - began)
    phases.append(_scored(phase, chosen.model, evaluate))
    if config.finetune.epochs:
        phase, _ = loops.run("finetune", chosen.model, [], chosen.masks)
        phases.append(_scored(phase, chosen.model, evaluate))
    count = sum(p.numel() for p in model.parameters())
    return TrainingResult(
        model=chosen.model,
        plans=chosen.plans,
        masks=chosen.masks,
        phases=tuple(phases),
        left=chosen.left,
        parameters=(count, sum(p.numel() for p in chosen.model.parameters())),
        macs=chosen.macs,
        scores_before=before,
        decided_by=chosen.decided_by,
        concentration=concentration,
    )


def _check_loops(config: TrainingConfig) -> None:
    """Raise `TrainingError` for optimizers and schedulers of loops that are still far off."""
    for loop in (config.train, config.finetune):
        if loop.epochs or config.learning_weight.retrain_epochs:
            optimizer = make_optimizer(loop.optimizer, [nn.Parameter(torch.zeros(1))])
            make_scheduler(loop.scheduler, optimizer, 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Loops:
    """What both loops share."""

    samples: CalibrationSet
    teacher: nn.Module
    config: TrainingConfig
    loss: str | LossFunction
    augment: Augment | None
    folder: Path | None
    progress: bool | None

    def run(
        self,
        name: LoopName,
        model: nn.Module,
        callbacks: list[Callback],
        masks: MaskSet | None,
        *,
        between: bool = False,
    ) -> tuple[Phase, FeaturePairs | None]:
        """Train the model in place; features' adapters as they are then, if there are any.

        ``between``: sessions of the learning weight, for its number of epochs, and without a
        checkpoint.
        """
        options: LoopSection = getattr(self.config, name)
        epochs = self.config.learning_weight.retrain_epochs if between else options.epochs
        distillation = self._distillation(name, model)
        if distillation is not None:
            callbacks = [*callbacks, distillation]
        own = [p for c in callbacks for p in c.parameters()]
        optimizer = make_optimizer(options.optimizer, [*model.parameters(), *own])
        per_epoch = steps_per_epoch(self.samples, options.batch_size)
        length = epochs * (per_epoch if options.schedule == "step" else 1)
        scheduler = make_scheduler(options.scheduler, optimizer, length)
        checkpoint = None
        if self.folder is not None and not between:
            checkpoint = self.folder / f"{name}.ckpt"
        started = time.perf_counter()
        model.train()
        try:
            with ExitStack() as stack:
                if masks is not None:
                    stack.enter_context(keep_masked(model, masks, optimizer))
                report = train(
                    model,
                    self.samples,  # type: ignore[arg-type]
                    optimizer,
                    epochs=epochs,
                    batch_size=options.batch_size,
                    scheduler=scheduler,
                    schedule=options.schedule,
                    loss=self.loss,
                    callbacks=callbacks,
                    augment=self.augment,
                    clip_norm=options.clip_norm,
                    checkpoint=checkpoint,
                    checkpoint_steps=options.checkpoint_steps,
                    seed=_SEEDS[name] + self.config.seed,
                    progress=self.progress,
                )
        finally:
            model.eval()
        phase = Phase(name, time.perf_counter() - started, report.losses)
        return phase, None if distillation is None else distillation.pairs

    def _distillation(self, name: LoopName, model: nn.Module) -> Distillation | None:
        if name not in self.config.distillation.phases:
            return None
        options = self.config.distillation.model_dump(exclude={"phases"})
        example = example_of(self.samples)
        return Distillation(self.teacher, model, example, **options, seed=self.config.seed)


def _synthetic(calibration: object, config: TrainingConfig) -> SyntheticOptions | None:
    """How samples are made, if they are. Raises `TrainingError`."""
    if not isinstance(calibration, str):
        return None
    if calibration != "synthetic":
        raise TrainingError(f"calibration = {calibration!r}: give samples, 'synthetic' or None")
    if not config.synthetic.shape:
        raise TrainingError("calibration = 'synthetic' needs synthetic.shape, that of one sample")
    return SyntheticOptions(**config.synthetic.model_dump(exclude={"shape"}), seed=config.seed)


def _torque(
    model: nn.Module, structure: Structure | None, example: Example, config: TrainingConfig
) -> Torque | None:
    if not config.torque.strength:
        return None
    found = structure or known_structure(model, example)
    return Torque(model, found, **config.torque.model_dump())


def _stored(
    folder: Path,
    choice: Callable[[], Chosen],
    model: nn.Module,
    data: CalibrationSet,
    config: TrainingConfig,
    teacher: nn.Module,
    example: Example,
) -> Chosen:
    """What was chosen before the run was killed, or what is chosen now."""
    path = folder / "chosen.ckpt"
    again = config.learning_weight.retrain_epochs > 0
    options = config.model_dump(exclude={"train"} if again else {"train", "finetune"})
    run = {k: json.dumps(v) for k, v in options.items()}
    run |= {"weights": state_hash(model), "samples": data_hash(data)}
    run |= {"teacher": state_hash(teacher)}
    if path.exists():
        return load_chosen(path, run, model, example)
    chosen = choice()
    save_chosen(path, run, chosen)
    return chosen


def _scored(
    phase: Phase, model: nn.Module, evaluate: Callable[[nn.Module], Mapping[str, float]] | None
) -> Phase:
    return phase if evaluate is None else replace(phase, scores=dict(evaluate(model)))
