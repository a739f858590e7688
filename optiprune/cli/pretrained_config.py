"""The run file for a directory of Hugging Face Transformers, in place of a function's model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from optiprune.config import Config, read_toml
from optiprune.config.section import Section

from .run_config import TRACKERS, RunConfig, Tracker, load_file

__all__ = ["PretrainedRunConfig", "load_prune_config"]


class PretrainedSection(Section):
    """The trained language model, and how it is gone through."""

    dir: str = Field(
        description="Directory with config.json and safetensors, as save_pretrained writes it; "
        "relative to the folder of this file."
    )
    trust_remote_code: bool = Field(
        False, description="Run Python code that the directory brings; it can do anything."
    )
    activations: Literal["memory", "disk"] = Field(
        "memory",
        description="Where what runs between two blocks is kept; 'disk' (in output.dir) also runs "
        "each dense block anew for every stage of its layers.",
    )
    expert_tokens: int = Field(
        256,
        ge=1,
        description="Layers of experts that saw fewer tokens keep their largest weights and are "
        "not re-fitted; the report names them.",
    )
    device: str = Field("cpu", description="Device to run blocks on: cpu, cuda, cuda:1.")


class TextSection(Section):
    """What the model is calibrated on: the first tokens of a text."""

    file: str = Field(
        description="Text (UTF-8), or .jsonl with one document a line; relative to the folder of "
        "this file."
    )
    key: str = Field("text", description="Key of the text in a line of .jsonl.")
    samples: int = Field(128, ge=2, description="Windows of tokens.")
    length: int | None = Field(
        None,
        ge=2,
        description="Tokens of a window; none: 2048, or what the model can take if that is less.",
    )
    skip: int = Field(0, ge=0, description="Windows to leave out before the first.")


class PretrainedOutput(Section):
    """Where the pruned model is written."""

    dir: str = Field(
        "optiprune-out",
        description="Directory of the pruned model and of the run's records, relative to the "
        "folder of this file; `--out` replaces it.",
    )
    log: tuple[Tracker, ...] = Field((), description=TRACKERS)


class PretrainedRunConfig(Config):
    """All of `Config`, and the sections [pretrained], [text] and [output]."""

    pretrained: PretrainedSection = Field(description="")
    text: TextSection = Field(description="")
    output: PretrainedOutput = Field(PretrainedOutput(), description="")

    @model_validator(mode="after")
    def _check(self) -> PretrainedRunConfig:
        if self.pretrained.dir == self.output.dir:
            raise ValueError("output.dir must be another directory than pretrained.dir")
        return self

    def engine_config(self) -> Config:
        """The part that `prune_pretrained` takes."""
        return Config.model_validate({name: getattr(self, name) for name in Config.model_fields})

    def absolute(self, folder: Path) -> PretrainedRunConfig:
        """Paths made absolute; those that are not start at ``folder``."""

        def at(path: str) -> str:
            return str((folder / path).resolve())

        return self.model_copy(
            update={
                "pretrained": self.pretrained.model_copy(update={"dir": at(self.pretrained.dir)}),
                "text": self.text.model_copy(update={"file": at(self.text.file)}),
                "output": self.output.model_copy(update={"dir": at(self.output.dir)}),
            }
        )


def load_prune_config(
    path: Path | None, changes: Mapping[str, Any]
) -> RunConfig | PretrainedRunConfig:
    """The config of a run file, of the kind that its tables ask for; without a file of ``changes``.

    Raises `ConfigError`, see `load_file`.
    """
    table = {} if path is None else read_toml(path)
    named = {*table, *(key.partition(".")[0] for key in changes)}
    if "pretrained" in named:
        return load_file(PretrainedRunConfig, path, changes)
    return load_file(RunConfig, path, changes)
