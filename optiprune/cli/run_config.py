"""The file that ``optiprune prune`` reads: every option of the engine, plus where things are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, field_validator

from optiprune.config import Config, ConfigError, read_toml, validate
from optiprune.config.run_files import HISTORY, MASKS, MODEL
from optiprune.config.section import Section

__all__ = [
    "TRACKERS",
    "DataSection",
    "ModelSection",
    "OutputSection",
    "RunConfig",
    "Tracker",
    "check_reference",
    "load_file",
    "load_run_config",
]


Tracker = Literal["tensorboard", "mlflow"]
TRACKERS = (
    "Where the steps and the end of the run are logged to: 'tensorboard' (event files in the "
    "folder tensorboard), 'mlflow' (where MLFLOW_TRACKING_URI says)."
)
FileConfig = TypeVar("FileConfig", bound=Section)

# no separators of any system, no drive, nothing that cannot be printed
_PLAIN = re.compile(r"[^/\\:\x00-\x1f\x7f\ud800-\udfff]+")
_TAKEN = ("unfinished", ".lock")


def check_reference(value: str) -> str:
    """The value, if it names a function. Raises ValueError."""
    where, colon, function = value.rpartition(":")
    if not colon or not where or not function.isidentifier():
        raise ValueError("must be 'file.py:function' or 'package.module:function'")
    return value


class ModelSection(Section):
    """The trained model."""

    factory: str = Field(
        description="'file.py:function' or 'package.module:function' that returns the model, "
        "a torch.nn.Module. Paths are relative to the folder of this file."
    )
    weights: str | None = Field(
        None,
        description="A safetensors file with the state dict of the trained weights, loaded into "
        "what the factory returns; none: the factory returns a trained model.",
    )

    _factory = field_validator("factory")(check_reference)


class DataSection(Section):
    """What the model is calibrated, judged and measured on."""

    calibration: str = Field(
        description="Function that returns an iterable of input batches, or of (inputs, targets)."
    )
    holdout: str | None = Field(
        None,
        description="Function that returns batches to judge steps on; none: a share of the "
        "calibration samples (accept.holdout) is kept apart.",
    )
    evaluate: str | None = Field(
        None,
        description="Function that takes the model and returns a table of numbers, such as "
        '{"accuracy": 0.97}; called before and after.',
    )

    @field_validator("calibration", "holdout", "evaluate")
    @classmethod
    def _check(cls, value: str | None) -> str | None:
        return None if value is None else check_reference(value)


class OutputSection(Section):
    """What is written, and where."""

    dir: str = Field(
        "optiprune-out",
        description="Folder of the results, relative to the folder of this file; "
        "`--out` replaces it.",
    )
    masks: str = Field(MASKS, description="File name of the masks.")
    save_model: bool = Field(
        True, description="Write the state dict of the pruned model (zeros stay in it)."
    )
    model: str = Field(MODEL, description="File name of the pruned state dict.")
    history: str = Field(HISTORY, description="File name of the history: one JSON object a step.")

    log: tuple[Tracker, ...] = Field((), description=TRACKERS)

    @field_validator("masks", "model", "history")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if not _PLAIN.fullmatch(value) or value in (".", "..") or len(value.encode()) > 200:
            raise ValueError("must be a plain file name; the folder is output.dir")
        if value in _TAKEN:
            raise ValueError("is a name that a run needs itself; choose another")
        return value


class RunConfig(Config):
    """All of `Config`, and the sections [model], [data] and [output] of a run from a file."""

    model: ModelSection = Field(description="")
    data: DataSection = Field(description="")
    output: OutputSection = Field(OutputSection(), description="")

    def engine_config(self) -> Config:
        """The part that `optimize_masks` takes."""
        return Config.model_validate({name: getattr(self, name) for name in Config.model_fields})


def load_run_config(path: str | Path, changes: Mapping[str, Any] | None = None) -> RunConfig:
    """`load_file` of a `RunConfig`."""
    return load_file(RunConfig, path, changes)


def load_file(
    kind: type[FileConfig], path: str | Path | None, changes: Mapping[str, Any] | None = None
) -> FileConfig:
    """Read and validate a run's TOML file.

    Parameters
    ----------
    path : of the file; None: there is none, ``changes`` are all
    changes : options given on the command line, by dotted key (``{"prune.sparsity": 0.9}``); they
        replace those of the file

    Raises
    ------
    ConfigError
        With the file's name and every complaint: unreadable, not TOML, unknown or missing key, bad
        value.
    """
    table = {} if path is None else read_toml(path)
    where = "the command line" if path is None else path
    for key, value in (changes or {}).items():
        *sections, last = key.split(".")
        inner = table
        for section in sections:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{where}: '{section}' must be a table, got {inner!r}")
        inner[last] = value
    try:
        run: FileConfig = validate(kind, table)
    except ConfigError as e:
        raise ConfigError(f"{where}:\n{e}") from None
    return run
