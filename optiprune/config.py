"""Every option in one place: types, defaults, meanings; read from TOML, unknown keys refused.

The tables of the documentation, ``optiprune config --explain`` and the errors are all made from the
models below, so they cannot disagree.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "AcceptOptions",
    "BatchOptions",
    "Config",
    "ConfigError",
    "CurvatureOptions",
    "InitialOptions",
    "LayerOptions",
    "PruneOptions",
    "RefitOptions",
    "ScheduleOptions",
    "explain",
    "load_config",
    "parse_pattern",
]

Sparsity = Annotated[float, Field(ge=0.0, lt=1.0)]


class ConfigError(ValueError):
    """A config that cannot be used; the message names the key and what it may be."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PruneOptions(_Section):
    """What to reach."""

    sparsity: Sparsity = Field(
        0.5, description="Share of the weights that take part to prune; density = 1 - sparsity."
    )
    objective: Literal["reconstruction", "global"] = Field(
        "reconstruction",
        description="'reconstruction': each layer's output on the calibration data (no labels); "
        "'global': the model's loss, by gradient and Fisher matrix.",
    )
    refit: bool = Field(
        True,
        description="Re-fit the kept weights of each layer by least squares after the masks are "
        "chosen. false: kept weights keep their values (mask only).",
    )
    pattern: str = Field(
        "unstructured",
        description="'unstructured', or 'N:M' (2:4, 4:8 ...): exactly N kept in every M "
        "consecutive weights of a row; sparsity is then 1 - N/M whatever is given.",
    )
    scope: Literal["auto", "global", "layer", "row"] = Field(
        "auto",
        description="Over what the sparsity is held: the whole model, each layer, or each output "
        "row. 'auto': global for the global objective, layer for reconstruction.",
    )
    loss: Literal["auto", "cross_entropy", "mse", "kl", "output"] = Field(
        "auto",
        description="Loss of the global objective. 'auto': cross-entropy for integer targets, mse "
        "for float targets, the output's own .loss without targets. 'kl': divergence from the "
        "dense model's outputs (no labels). From Python any callable(outputs, targets) will do.",
    )

    @field_validator("pattern")
    @classmethod
    def _check_pattern(cls, value: str) -> str:
        parse_pattern(value)
        return value


class LayerOptions(_Section):
    """Which layers take part."""

    include: tuple[str, ...] = Field(
        ("*",), description="Names (fnmatch patterns) of the modules that take part."
    )
    exclude: tuple[str, ...] = Field(
        (), description="Names (patterns) left out; wins over include."
    )
    types: tuple[Literal["Linear", "Conv2d"], ...] = Field(
        ("Linear", "Conv2d"), description="Module types that take part."
    )
    sparsity: dict[str, Sparsity] = Field(
        {},
        description="Sparsity of the layers that match a pattern, in place of the common one; "
        "the first match counts. Such a layer keeps a budget of its own.",
    )
    min_kept: int = Field(
        1, ge=0, description="A budget that leaves fewer weights than this in a layer is an error."
    )


class InitialOptions(_Section):
    """The mask to start from."""

    method: Literal["auto", "magnitude", "wanda", "gradient", "random", "nonzero"] = Field(
        "auto",
        description="Score of the first mask: |w|; |w| times the input's norm (wanda); |w g|; "
        "random; or keep exactly what is non-zero now (an already sparse model). 'auto': "
        "magnitude for the global objective, wanda for reconstruction without refit and "
        "magnitude with it.",
    )


class ScheduleOptions(_Section):
    """How the density falls to its target."""

    kind: Literal["one-shot", "cubic", "geometric"] = Field(
        "one-shot",
        description="One stage; s_t = s(1 - (1 - t/T)^3) (Zhu & Gupta 2017); or a constant factor "
        "of the density per stage.",
    )
    stages: int = Field(1, ge=1, description="Stages of a cubic or geometric schedule.")


class BatchOptions(_Section):
    """Which weights are decided together."""

    size: int = Field(2048, ge=2, description="Weights in a batch: variables of one problem.")
    steps: int = Field(
        40, ge=0, description="Batches solved per stage (global objective), all stages alike."
    )
    sweeps: int = Field(
        1, ge=0, description="Passes over the rows of each layer (reconstruction objective)."
    )
    seconds: float | None = Field(
        None, gt=0, description="Stop the search after this many seconds (global objective)."
    )
    patience: int = Field(
        20, ge=1, description="Stop a stage after this many rejected steps in a row."
    )
    across: Literal["model", "layer"] = Field(
        "model",
        description="Draw a batch from all layers at once, or from one layer at a time in turn. "
        "Layers with budgets of their own exchange only within themselves either way.",
    )
    kept: float = Field(
        0.5, gt=0, lt=1, description="Share of the batch that is kept weights; the rest is pruned."
    )
    partners: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the batch chosen as the best correlated partners of the rest.",
    )
    noise: float = Field(
        1.0,
        ge=0,
        description="Seeded Gumbel noise on the ranking of marginal costs, in units of their "
        "spread near the cut: diversification.",
    )
    tabu: float = Field(
        0.7,
        ge=0,
        le=1,
        description="Soft tabu: a weight that was in the last batch has its rank pushed down by "
        "this share of the spread, decaying by half every step.",
    )


class CurvatureOptions(_Section):
    """The local quadratic model of the loss."""

    fisher: Literal["auto", "true", "empirical"] = Field(
        "auto",
        description="Curvature from per-sample gradients on labels sampled from the model's own "
        "outputs ('true': the Gauss-Newton matrix of the loss), or on the targets given "
        "('empirical'). 'auto': true for cross_entropy, kl and mse, empirical for any other loss.",
    )
    samples: int = Field(
        2000, ge=1, description="Calibration samples drawn for each step's Fisher."
    )
    gradient_samples: int | None = Field(
        8000,
        ge=1,
        description="Samples for the gradient, at least those of the Fisher; none: same.",
    )
    chunk: int = Field(
        256, ge=1, description="Samples sent through the model at once; bounds memory."
    )
    ridge: float = Field(
        1e-2, ge=0, description="Trust-region ridge rho added to the curvature, absolute."
    )
    adapt_ridge: bool = Field(
        True,
        description="Double the ridge after a step that raised the held-out loss (64-fold at "
        "most), halve it again after one that lowered it.",
    )
    gradient_scale: float = Field(
        1.0, ge=0, le=1, description="Factor on the gradient term; below 1 the step is more wary."
    )
    inputs: Literal["pruned", "dense"] = Field(
        "pruned",
        description="Inputs of a layer in reconstruction: from the pruned layers before it, with "
        "the dense outputs as targets; or from the dense model (one pass for all layers).",
    )


class AcceptOptions(_Section):
    """Whether a step stays."""

    holdout: float = Field(
        0.25,
        ge=0,
        lt=1,
        description="Share of the calibration samples kept apart to judge steps; 0 accepts "
        "every step unseen.",
    )
    samples: int = Field(4000, ge=1, description="Held-out samples used at most.")
    tolerance: float = Field(
        0.0, ge=0, description="A step stays if the held-out loss rises by no more than this."
    )


class RefitOptions(_Section):
    """Least squares on the kept weights."""

    damping: float = Field(
        1e-4,
        ge=0,
        description="Added to the Gram diagonal, in units of its mean; raised tenfold (and "
        "reported) while a factorisation fails.",
    )


class Config(_Section):
    """The whole configuration of `optimize_masks`."""

    seed: int = Field(
        0, ge=0, description="The one seed; every task draws from its own child of it."
    )
    workers: int = Field(1, ge=1, description="Threads that solve problems side by side.")
    threads: int = Field(
        0,
        ge=0,
        description="Threads of torch and BLAS inside a run; 0 takes all usable cores. Fixed here, "
        "so that the masks do not depend on the environment. On a machine that others use too, 1 "
        "can be many times faster.",
    )
    prune: PruneOptions = Field(PruneOptions(), description="")
    layers: LayerOptions = Field(LayerOptions(), description="")
    initial: InitialOptions = Field(InitialOptions(), description="")
    schedule: ScheduleOptions = Field(ScheduleOptions(), description="")
    batches: BatchOptions = Field(BatchOptions(), description="")
    curvature: CurvatureOptions = Field(CurvatureOptions(), description="")
    accept: AcceptOptions = Field(AcceptOptions(), description="")
    refit: RefitOptions = Field(RefitOptions(), description="")
    solver: dict[str, Any] = Field(
        {"name": "auto"},
        description="Solver by name with its hyperparameters, as `optiprune solvers` lists them; "
        "'time_limit' (seconds a problem) may be added.",
    )

    @field_validator("solver")
    @classmethod
    def _check_solver(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(value.get("name"), str):
            raise ValueError("a solver table needs a 'name'")
        limit = value.get("time_limit")
        if limit is not None and not (isinstance(limit, (int, float)) and limit > 0):
            raise ValueError(f"time_limit must be a number of seconds > 0, got {limit!r}")
        return value

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Config:
        """Validate a nested mapping. Raises `ConfigError` naming key and nearest valid one."""
        return validate(cls, table)

    def replace(self, **sections: Mapping[str, Any] | Any) -> Config:
        """A copy with some keys of some sections changed: ``replace(prune={"sparsity": 0.9})``."""
        table = self.model_dump()
        for section, change in sections.items():
            if section != "solver" and isinstance(change, Mapping) and section in table:
                table[section] = {**table[section], **change}
            else:
                table[section] = change
        return validate(type(self), table)


def parse_pattern(pattern: str) -> tuple[int, int] | None:
    """None for 'unstructured', (N, M) for 'N:M'. Raises `ConfigError` for anything else."""
    if pattern == "unstructured":
        return None
    match = re.fullmatch(r"(\d+):(\d+)", pattern)
    if match is None:
        raise ConfigError(f"pattern must be 'unstructured' or 'N:M' such as '2:4', got {pattern!r}")
    n, m = int(match[1]), int(match[2])
    if not 0 < n < m:
        raise ConfigError(f"pattern N:M needs 0 < N < M, got {pattern!r}")
    return n, m


def validate(model: type[Any], table: Mapping[str, Any]) -> Any:
    """Validate ``table`` against a config model. Raises `ConfigError` with every complaint."""
    try:
        return model.model_validate(table)
    except ValidationError as e:
        raise ConfigError("\n".join(_complaints(model, e))) from None


def _complaints(model: type[BaseModel], error: ValidationError) -> Iterator[str]:
    for item in error.errors():
        path = [str(p) for p in item["loc"]]
        where = ".".join(path)
        if item["type"] == "extra_forbidden":
            valid = sorted(_fields_at(model, path[:-1]))
            close = difflib.get_close_matches(path[-1], valid, 1, cutoff=0.5)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            yield f"unknown key '{where}'{hint} Valid here: {', '.join(valid)}"
        else:
            shown = item.get("input")
            got = "" if isinstance(shown, dict) else f", got {shown!r}"
            message = item["msg"].removeprefix("Value error, ")
            yield f"{where}: {message[:1].lower()}{message[1:]}{got}"


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        inner = model.model_fields[part].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)


def read_toml(path: str | Path) -> dict[str, Any]:
    """Parse a TOML file. Raises `ConfigError` with the file's name (and line, for bad syntax)."""
    try:
        with open(path, "rb") as f:
            return tomllib.load(f)
    except OSError as e:
        raise ConfigError(f"cannot read {path}: {e.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path} is not valid TOML: {e}") from None


def load_config(path: str | Path) -> Config:
    """Read a `Config` from a TOML file. Raises `ConfigError`."""
    return Config.from_table(read_toml(path))


def explain(
    model: type[BaseModel] = Config, prefix: str = ""
) -> Iterator[tuple[str, str, str, str]]:
    """(key, type, default, meaning) of every option, in the order of the file."""
    for name, info in model.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from explain(inner, f"{prefix}{name}.")
        else:
            default = "required" if info.is_required() else _toml_value(info.default)
            yield f"{prefix}{name}", _type_name(info), default, info.description or ""


def _toml_value(value: Any) -> str:
    if value is None:
        return "(none)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {_toml_value(v)}" for k, v in value.items()) + "}"
    return str(value)


def _type_name(info: Any) -> str:
    text = (
        str(info.annotation) if not isinstance(info.annotation, type) else info.annotation.__name__
    )
    text = text.replace("typing.", "")
    text = re.sub(r"Annotated\[float, FieldInfo\(.*?\]\)\]", "float in [0, 1)", text)
    text = re.sub(r"Literal\[(.*?)\]", lambda m: m[1].replace(", ", " | "), text)
    bounds = [
        f"{symbol} {getattr(m, attribute)}"
        for m in info.metadata
        for attribute, symbol in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))
        if hasattr(m, attribute)
    ]
    return f"{text} {', '.join(bounds)}" if bounds else text
