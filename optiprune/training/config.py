"""Options of pruning in training, as a TOML file and `prune_in_training` take them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from optiprune.config.section import Section

__all__ = [
    "BudgetSection",
    "ChoiceSection",
    "DistillationSection",
    "LearningWeightSection",
    "LoopSection",
    "SensitivitySection",
    "SyntheticSection",
    "TorqueSection",
    "TrainingConfig",
]


class LoopSection(Section):
    """A training loop; no epochs: it is left out."""

    epochs: int = Field(0, ge=0, description="Passes over the training data.")
    batch_size: int = Field(128, ge=1, description="Samples a step.")
    optimizer: dict[str, Any] = Field(
        {"name": "SGD", "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
        description="Name of an optimizer of torch.optim, and its options.",
    )
    scheduler: dict[str, Any] = Field(
        {"name": "CosineAnnealingLR"},
        description="Name of a scheduler of torch.optim.lr_scheduler, and its options; an empty "
        "table: none. T_max, total_steps and total_iters are the number of steps by default.",
    )
    schedule: Literal["step", "epoch"] = Field("step", description="When the scheduler steps.")
    clip_norm: float | None = Field(None, gt=0, description="Largest norm of the gradient.")
    checkpoint_steps: int | None = Field(
        None, ge=1, description="Steps between checkpoints; none: one after every epoch."
    )


class TorqueSection(Section):
    """A force that gathers weight near a pivot, in [train]; see `Torque`."""

    strength: float = Field(0.0, ge=0, description="Of the regularisation; 0: none.")
    profile: Literal["linear", "exponential"] = Field("linear", description="Over the distance.")
    pivot: Literal["first", "middle", "last", "largest"] = Field(
        "first", description="The unit of every group that the force leaves alone."
    )
    schedule: Literal["constant", "rising", "falling", "rising-falling"] = Field(
        "constant", description="Of the strength over the training."
    )
    include: tuple[str, ...] = Field(("*",), description="Groups (fnmatch patterns).")
    exclude: tuple[str, ...] = Field((), description="Groups left out; wins over include.")


class DistillationSection(Section):
    """Training with a teacher, in [finetune] and, if asked for, in [train]; see `Distillation`."""

    phases: tuple[Literal["train", "finetune"], ...] = Field(
        (), description="Loops that have a teacher; none: no distillation."
    )
    features: dict[str, str] = Field(
        {},
        description="The student's modules -> the teacher's, whose outputs are to agree; the rule "
        "'features' needs some.",
    )
    temperature: float = Field(1.0, gt=0, description="Of softened outputs.")
    output_weight: float = Field(3.0, ge=0, description="Of the divergence of outputs.")
    feature_weight: float = Field(3.0, ge=0, description="Of the distances of features.")
    auxiliary_weight: float = Field(
        0.3, ge=0, description="Of the classifiers on the student's features."
    )
    grid: int = Field(4, ge=1, description="Pictures are compared at this many positions a side.")


class BudgetSection(Section):
    """What may be left: a share in (0, 1], or a cost above 1."""

    parameters: float | None = Field(None, gt=0, description="Parameters.")
    macs: float | None = Field(None, gt=0, description="Multiply-adds of one sample.")
    memory: float | None = Field(None, gt=0, description="Bytes of parameters and results.")
    latency: float | None = Field(
        None, gt=0, le=1, description="Seconds by a table; only with decide = 'engine'."
    )
    sparsity: float | None = Field(
        None, ge=0, lt=1, description="Share of the weights to prune, for of = 'weights'."
    )


class ChoiceSection(Section):
    """Who chooses what leaves, and of what."""

    rule: Literal["average-weight", "features", "sensitivity", "learning-weight", "behaviour"] = (
        Field(
            "average-weight",
            description="'average-weight': channels of small average weight (after torque); "
            "'features': what the teacher's features miss least; 'sensitivity': thresholds, the "
            "least sensitive layer first; 'learning-weight': sessions within a tolerance; "
            "'behaviour': sensitivity by the change of outputs, without labels.",
        )
    )
    decide: Literal["rule", "engine"] = Field(
        "rule", description="'engine': the combinatorial version of the rule."
    )
    of: Literal["units", "weights"] = Field(
        "units",
        description="Channels, neurons and heads, which leave the model, or single weights, which "
        "are masked (rules features, sensitivity, behaviour).",
    )
    minimum: float = Field(
        0.1, ge=0, le=1, description="Share of its units that every group keeps at least."
    )
    refit: bool = Field(
        False,
        description="Fit the layers that read what is left again (rules average-weight, features).",
    )
    engine: dict[str, Any] = Field(
        {}, description="Further options of optimize_structure or optimize_masks."
    )


class SensitivitySection(Section):
    """Of the rules 'sensitivity' and 'behaviour'; see `SensitivityOptions`."""

    tolerance: float = Field(0.01, ge=0, description="By which the accuracy may fall.")
    step: float = Field(0.1, gt=0, lt=1, description="By which rates rise.")
    layer_drop: float | None = Field(
        None, ge=0, description="Fall of one layer; none: an equal part of what is left."
    )
    max_rate: float = Field(0.95, gt=0, lt=1, description="No rate is above it.")


class LearningWeightSection(Section):
    """Of the rule 'learning-weight'; see `LearningWeightOptions`."""

    tolerance: float = Field(0.01, gt=0, description="By which the accuracy may fall.")
    initial: float = Field(0.3, gt=0, description="Reference value of the learning weight.")
    lower_limit: float = Field(0.01, gt=0, description="Below it a session ends.")
    zero_rate: float = Field(
        0.5, gt=0, le=1, description="Share of a channel's elements that are zero when it leaves."
    )
    sessions: int = Field(5, ge=1, description="At most.")
    retrain_epochs: int = Field(
        0, ge=0, description="Of the loop of [finetune] after each session; 0: no training between."
    )


class SyntheticSection(Section):
    """Samples made from the network, for data.calibration = 'synthetic'; see `SyntheticOptions`."""

    shape: tuple[int, ...] = Field((), description="Of one sample, without the batch.")
    samples: int = Field(256, ge=1, description="How many.")
    batch: int = Field(64, ge=2, description="How many at once.")
    steps: int = Field(200, ge=0, description="Of Adam.")
    rate: float = Field(0.05, gt=0, description="Of Adam.")
    statistics: float = Field(1.0, ge=0, description="Weight of batch norms' statistics.")
    behaviour: float = Field(1.0, ge=0, description="Weight of the change that pruning brings.")
    smoothness: float = Field(0.01, ge=0, description="Weight of differences of pixels.")
    low: float | None = Field(None, description="Least value of the inputs.")
    high: float | None = Field(None, description="Greatest value of the inputs.")


class TrainingConfig(Section):
    """Everything but the model and the data."""

    seed: int = Field(0, ge=0, description="The one seed.")
    per_class: int = Field(
        100, ge=1, description="Calibration samples of a class that measure accuracy."
    )
    train: LoopSection = Field(LoopSection(), description="Before anything leaves.")
    torque: TorqueSection = Field(TorqueSection(), description="")
    distillation: DistillationSection = Field(DistillationSection(), description="")
    choice: ChoiceSection = Field(ChoiceSection(), description="")
    budget: BudgetSection = Field(BudgetSection(), description="")
    sensitivity: SensitivitySection = Field(SensitivitySection(), description="")
    learning_weight: LearningWeightSection = Field(LearningWeightSection(), description="")
    synthetic: SyntheticSection = Field(SyntheticSection(), description="")
    finetune: LoopSection = Field(LoopSection(), description="Of what is left.")

    @model_validator(mode="after")
    def _together(self) -> TrainingConfig:
        rule, of = self.choice.rule, self.choice.of
        given = {k for k, v in self.budget if v is not None}
        if of == "weights" and rule not in ("features", "sensitivity", "behaviour"):
            raise ValueError(f"choice.of = 'weights' is not for choice.rule = {rule!r}")
        if rule in ("average-weight", "features"):
            allowed = {"sparsity"} if of == "weights" else {"parameters", "macs", "memory"}
            if of == "units" and self.choice.decide == "engine":
                allowed.add("latency")
            needed = True
        else:
            allowed, needed = {"sparsity"} if of == "weights" else {"parameters"}, False
        wrong = sorted(given - allowed)
        if wrong:
            raise ValueError(
                f"budget.{wrong[0]} is not for choice.rule = {rule!r} of {of}; there it is "
                f"{', '.join(sorted(allowed))}"
            )
        if needed and not given:
            raise ValueError(f"choice.rule = {rule!r} needs a budget: {', '.join(sorted(allowed))}")
        if rule == "features" and not self.distillation.features:
            raise ValueError("choice.rule = 'features' needs distillation.features")
        if self.torque.strength and not self.train.epochs:
            raise ValueError("torque.strength needs train.epochs: it acts while the model trains")
        for phase in self.distillation.phases:
            if not getattr(self, phase).epochs:
                raise ValueError(
                    f"distillation.phases has {phase!r}, a loop without epochs ({phase}.epochs = 0)"
                )
        if self.choice.refit and of == "weights":
            raise ValueError("choice.refit is not for choice.of = 'weights'")
        if self.choice.refit and rule not in ("average-weight", "features"):
            raise ValueError(f"choice.refit is not for choice.rule = {rule!r}")
        if self.choice.engine and self.choice.decide == "rule":
            raise ValueError("choice.engine has options, and choice.decide = 'rule'")
        return self
