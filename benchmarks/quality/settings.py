"""What is to be measured, from the command line and from a ``[quality]`` table in a TOML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from benchmarks.models.lookup import find_model
from benchmarks.models.quality import QualityModel
from optiprune.config import ConfigError
from optiprune.config.reading import read_toml, validate

from .grid import DENSITIES, Cell, Density, cells
from .methods import Method, choose

__all__ = ["Settings", "plan", "read_settings"]

MODELS = ("lenet-300-100", "mlp-784-512-512-10", "cnn-32-64-fc128", "resnet20")


class Settings(BaseModel):
    """The table ``[quality]``."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    models: tuple[str, ...] = Field(
        MODELS, description="Names, 'all', or module:function of your own."
    )
    densities: tuple[str, ...] = Field(DENSITIES, description="Shares that stay, and N:M.")
    methods: tuple[str, ...] = Field(
        ("all",), description="Names, patterns, all, ours, baselines, mask, weights."
    )
    seeds: tuple[int, ...] = Field((0, 1, 2), description="One checkpoint and one run each.")
    samples: int | None = Field(
        None, ge=1, description="Calibration samples; by default each model's own number."
    )
    loss: str = Field("auto", description="Loss of methods that look at the model's loss.")
    timeout: float = Field(3600.0, gt=0, description="Wall-clock seconds of a cell.")
    threads: int = Field(1, ge=1, description="Threads of a cell.")
    method: dict[str, dict[str, Any]] = Field(
        {}, description="Methods of your own: options of optimize_masks, or a callable."
    )

    @field_validator("densities", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return [str(v) for v in value] if isinstance(value, (list, tuple)) else value

    @field_validator("densities")
    @classmethod
    def _check_densities(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(str(Density.parse(v)) for v in value))

    @field_validator("seeds")
    @classmethod
    def _check_seeds(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(s < 0 for s in value):
            raise ValueError("seeds are integers >= 0")
        return tuple(dict.fromkeys(value))

    @field_validator("loss")
    @classmethod
    def _check_loss(cls, value: str) -> str:
        known = ("auto", "cross_entropy", "mse", "kl", "output")
        if value not in known:
            raise ValueError(f"loss must be one of {', '.join(known)}")
        return value

    @field_validator("models", "densities", "methods", "seeds")
    @classmethod
    def _check_some(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if not value:
            raise ValueError("there must be at least one")
        return value


def read_settings(config: Path | None, given: Mapping[str, Any]) -> Settings:
    """The table ``[quality]`` of a file, with what was given on the command line over it.

    Raises `ConfigError`: no such table, an unknown key, a bad value.
    """
    table: dict[str, Any] = {}
    if config is not None:
        whole = read_toml(config)
        if "quality" not in whole:
            raise ConfigError(f"{config} has no table [quality]")
        table = dict(whole["quality"])
    return validate(Settings, {**table, **{k: v for k, v in given.items() if v is not None}})


def plan(settings: Settings) -> tuple[list[Cell], list[QualityModel], list[Method]]:
    """The cells, the models and the methods that these settings ask for.

    Raises ValueError for names that do not exist and, before anything is measured, for packages and
    data that are missing.
    """
    from benchmarks.models.registry import QUALITY_MODELS

    names = [n for m in settings.models for n in (QUALITY_MODELS if m == "all" else (m,))]
    models = [find_model(n) for n in dict.fromkeys(names)]
    methods = choose(settings.methods, settings.method)
    for model in models:
        model.require()
    asked = list(dict.fromkeys(names))
    grid = cells(
        [(n, settings.samples or m.samples) for n, m in zip(asked, models, strict=True)],
        [Density.parse(d) for d in settings.densities],
        methods,
        settings.seeds,
        settings.loss,
    )
    return list(grid), models, methods
