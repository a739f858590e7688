"""The file that ``optiprune train`` reads."""

from __future__ import annotations

from pydantic import Field, field_validator

from optiprune.config.section import Section
from optiprune.training.config import TrainingConfig

from .run_config import ModelSection, check_reference

__all__ = ["TrainDataSection", "TrainOutputSection", "TrainRunConfig"]

SYNTHETIC = "synthetic"


class TrainDataSection(Section):
    """What the model is trained, calibrated and measured on."""

    train: str = Field(
        description="Function that returns an iterable of input batches, or of (inputs, targets)."
    )
    calibration: str | None = Field(
        None,
        description="Function that returns the samples that rules and the engine look at, or "
        "'synthetic': they are made from the network; none: the training data.",
    )
    evaluate: str | None = Field(
        None,
        description="Function that takes the model and returns a table of numbers, such as "
        '{"accuracy": 0.97}; called before and after every phase.',
    )
    augment: str | None = Field(
        None, description="Function of (inputs, torch.Generator) that returns inputs to train on."
    )
    teacher: str | None = Field(
        None, description="Function that returns the teacher; none: the model as it is given."
    )

    @field_validator("train", "evaluate", "augment", "teacher")
    @classmethod
    def _check(cls, value: str | None) -> str | None:
        return None if value is None else check_reference(value)

    @field_validator("calibration")
    @classmethod
    def _check_calibration(cls, value: str | None) -> str | None:
        return value if value in (None, SYNTHETIC) else check_reference(str(value))


class TrainOutputSection(Section):
    """Where results and checkpoints are written."""

    dir: str = Field(
        "optiprune-train",
        description="Folder, relative to the folder of this file; `--out` replaces it. A run that "
        "was killed goes on there.",
    )


class TrainRunConfig(TrainingConfig):
    """All of `TrainingConfig`, and the sections [model], [data] and [output]."""

    model: ModelSection = Field(description="")
    data: TrainDataSection = Field(description="")
    output: TrainOutputSection = Field(TrainOutputSection(), description="")

    def training(self) -> TrainingConfig:
        """The part that `prune_in_training` takes."""
        own = {name: getattr(self, name) for name in TrainingConfig.model_fields}
        return TrainingConfig.model_validate(own)
