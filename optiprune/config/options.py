"""Every option: its type, its default and its meaning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from optiprune.patterns import Block, PatternError, parse

from .allocation import AllocationOptions
from .executor import ExecutorOptions
from .fitting import JointOptions, RefitOptions
from .presets import Preset, with_preset
from .reading import ConfigError, read_toml, validate
from .section import GLOBAL, RECONSTRUCTION, Section
from .subset import SubsetOptions
from .tune import TuneOptions
from .window import WindowOptions

__all__ = [
    "AcceptOptions",
    "BatchOptions",
    "Config",
    "CurvatureOptions",
    "ExecutorOptions",
    "InitialOptions",
    "JointOptions",
    "LayerOptions",
    "PruneOptions",
    "RefitOptions",
    "ScheduleOptions",
    "SubsetOptions",
    "load_config",
    "parse_pattern",
]

Sparsity = Annotated[float, Field(ge=0.0, lt=1.0)]


class PruneOptions(Section):
    """What to reach."""

    sparsity: Sparsity = Field(
        0.5, description="Share of the weights that take part to prune; density = 1 - sparsity."
    )
    objective: Literal["auto", "reconstruction", "global"] = Field(
        "auto",
        description="'reconstruction': each layer's output on the calibration data (no labels); "
        "'global': the model's loss, by gradient and Fisher matrix. 'auto': reconstruction with "
        "refit; for masks alone global, up to 5 million weights.",
    )
    refit: bool = Field(
        True,
        description="Re-fit the kept weights of each layer by least squares after the masks are "
        "chosen. false: kept weights keep their values (mask only).",
    )
    pattern: str = Field(
        "unstructured",
        description="'unstructured'; 'N:M' (2:4, 4:8 ...): exactly N kept in every M consecutive "
        "weights of a row, sparsity is then 1 - N/M whatever is given; 'block:RxC' (block:1x16, "
        "block:16x16; block:4 is 1x4): tiles of R rows and C columns kept or pruned whole, in "
        "reconstruction; 'row-balanced': as many in every row, another name for scope = 'row'.",
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
        "dense model's outputs (no labels), also taken where objective = 'auto' is global and data "
        "have no targets. From Python any callable(outputs, targets) will do.",
    )

    @model_validator(mode="before")
    @classmethod
    def _row_balanced(cls, table: Any) -> Any:
        if not isinstance(table, Mapping) or table.get("pattern") != "row-balanced":
            return table
        scope = table.get("scope", "auto")
        if scope not in ("auto", "row"):
            raise ValueError(f"pattern = 'row-balanced' is scope = 'row', but scope = '{scope}'")
        return {**table, "pattern": "unstructured", "scope": "row"}

    @model_validator(mode="after")
    def _check_blocks(self) -> PruneOptions:
        if not isinstance(parse(self.pattern), Block):
            return self
        if self.objective == "global":
            raise ValueError(
                f"pattern = '{self.pattern}' needs objective = 'reconstruction': the global "
                "objective exchanges single weights"
            )
        if self.scope == "global":
            raise ValueError(
                f"pattern = '{self.pattern}' holds within layers: scope = 'layer' or 'row'"
            )
        return self

    @field_validator("pattern")
    @classmethod
    def _check_pattern(cls, value: str) -> str:
        parse_pattern(value)
        return value


class LayerOptions(Section):
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


class InitialOptions(Section):
    """The mask to start from."""

    method: Literal["auto", "magnitude", "wanda", "gradient", "random", "nonzero"] = Field(
        "auto",
        description="Score of the first mask: |w|; |w| times the input's norm (wanda); |w g|; "
        "random; or keep exactly what is non-zero now (an already sparse model). 'auto': "
        "magnitude for the global objective, wanda for reconstruction.",
    )


class ScheduleOptions(Section):
    """How the density falls to its target."""

    kind: Literal["one-shot", "cubic", "geometric"] = Field(
        "one-shot",
        description="One stage; s_t = s(1 - (1 - t/T)^3) (Zhu & Gupta 2017); or a constant factor "
        "of the density per stage.",
    )
    stages: int = Field(
        1, ge=1, description="Stages, at least 2 for a cubic or geometric schedule; 1 for one-shot."
    )

    @model_validator(mode="after")
    def _check_stages(self) -> ScheduleOptions:
        if self.kind != "one-shot" and self.stages < 2:
            raise ValueError(
                f"kind = '{self.kind}' needs stages >= 2: with {self.stages} it is 'one-shot'"
            )
        if self.kind == "one-shot" and self.stages > 1:
            raise ValueError(
                f"stages = {self.stages} needs kind = 'cubic' or 'geometric'; 'one-shot' has one"
            )
        return self


class BatchOptions(Section):
    """Which weights are decided together."""

    size: int = Field(2048, ge=2, description="Weights in a batch: variables of one problem.")
    steps: int = Field(
        40,
        ge=0,
        json_schema_extra=GLOBAL,
        description="Batches solved, spread evenly over the stages of the schedule.",
    )
    sweeps: int = Field(
        1,
        ge=0,
        json_schema_extra=RECONSTRUCTION,
        description="Passes over the rows of each layer.",
    )
    seconds: float | None = Field(
        None,
        gt=0,
        json_schema_extra=GLOBAL,
        description="Stop the search after this many seconds.",
    )
    patience: int = Field(
        20,
        ge=1,
        json_schema_extra=GLOBAL,
        description="Stop a stage after this many steps in a row that were rejected or changed "
        "nothing.",
    )
    across: Literal["model", "layer"] = Field(
        "model",
        json_schema_extra=GLOBAL,
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
        json_schema_extra=GLOBAL,
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
        json_schema_extra=GLOBAL,
        description="Soft tabu: a weight that was in the last batch has its rank pushed down by "
        "this share of the spread, decaying by half every step.",
    )


class CurvatureOptions(Section):
    """The local quadratic model of the loss."""

    fisher: Literal["auto", "true", "empirical"] = Field(
        "auto",
        json_schema_extra=GLOBAL,
        description="Curvature from per-sample gradients on labels sampled from the model's own "
        "outputs ('true': the Gauss-Newton matrix of the loss), or on the targets given "
        "('empirical'). 'auto': true for cross_entropy, kl and mse, empirical for any other loss.",
    )
    samples: int = Field(
        2000,
        ge=1,
        json_schema_extra=GLOBAL,
        description="Calibration samples drawn for each step's Fisher.",
    )
    gradient_samples: int | None = Field(
        8000,
        ge=1,
        json_schema_extra=GLOBAL,
        description="Samples for the gradient, at least those of the Fisher; none: same.",
    )
    work: float = Field(
        3e10,
        gt=0,
        json_schema_extra=GLOBAL,
        description="Multiply-adds of the layers in a step's forward passes, at most: both numbers "
        "of samples shrink in proportion, so that a step costs the same on slow models, where many "
        "steps with fewer samples are better than few with more.",
    )
    chunk: int = Field(
        256, ge=1, description="Samples sent through the model at once; bounds memory."
    )
    ridge: float = Field(
        1e-2,
        ge=0,
        json_schema_extra=GLOBAL,
        description="Trust-region ridge rho added to the curvature, absolute.",
    )
    adapt_ridge: bool = Field(
        True,
        json_schema_extra=GLOBAL,
        description="Double the ridge after a step that raised the held-out loss (64-fold at "
        "most), halve it again after one that lowered it.",
    )
    gradient_scale: float = Field(
        1.0,
        ge=0,
        le=1,
        json_schema_extra=GLOBAL,
        description="Factor on the gradient term; below 1 the step is more wary.",
    )
    positions: int = Field(
        200,
        ge=1,
        description="Positions (tokens, or output pixels of a convolution) for each input of a "
        "layer that enter its Gram matrix, at most; evenly spread over the samples.",
    )
    inputs: Literal["pruned", "dense"] = Field(
        "pruned",
        description="Inputs of a layer in reconstruction and in the refit: from the pruned layers "
        "before it, with the dense outputs as targets; or from the dense model (in reconstruction, "
        "one pass for all layers).",
    )


class AcceptOptions(Section):
    """Whether a step stays."""

    holdout: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of the calibration samples kept apart to judge steps; 0 accepts "
        "every step unseen.",
    )
    samples: int = Field(4000, ge=1, description="Held-out samples used at most.")
    tolerance: float = Field(
        0.0, ge=0, description="A step stays if the held-out loss rises by no more than this."
    )


class Config(Section):
    """The whole configuration of `optimize_masks`."""

    preset: Preset = Field(
        "balanced",
        description="Options that hold where nothing else is said: 'fast', 'balanced' (the "
        "defaults shown here) or 'best'.",
    )
    seed: int = Field(
        0, ge=0, description="The one seed; every task draws from its own child of it."
    )
    workers: int = Field(
        1,
        ge=1,
        json_schema_extra=RECONSTRUCTION,
        description="Threads that solve problems side by side; or, with another executor than "
        "'local', processes or Ray tasks that decide layers side by side.",
    )
    threads: int = Field(
        0,
        ge=0,
        description="Threads of torch and BLAS inside a run; 0 takes all usable cores. Fixed here, "
        "so that the masks do not depend on the environment. On a machine that others use too, 1 "
        "can be many times faster.",
    )
    prune: PruneOptions = Field(PruneOptions(), description="")
    layers: LayerOptions = Field(LayerOptions(), description="")
    allocation: AllocationOptions = Field(AllocationOptions(), description="")
    initial: InitialOptions = Field(InitialOptions(), description="")
    schedule: ScheduleOptions = Field(ScheduleOptions(), description="", json_schema_extra=GLOBAL)
    batches: BatchOptions = Field(BatchOptions(), description="")
    curvature: CurvatureOptions = Field(CurvatureOptions(), description="")
    accept: AcceptOptions = Field(AcceptOptions(), description="")
    refit: RefitOptions = Field(RefitOptions(), description="")
    joint: JointOptions = Field(JointOptions(), description="", json_schema_extra=RECONSTRUCTION)
    subset: SubsetOptions = Field(SubsetOptions(), description="", json_schema_extra=GLOBAL)
    window: WindowOptions = Field(WindowOptions(), description="", json_schema_extra=RECONSTRUCTION)
    tune: TuneOptions = Field(TuneOptions(), description="")
    executor: ExecutorOptions = Field(
        ExecutorOptions(), description="", json_schema_extra=RECONSTRUCTION
    )
    solver: dict[str, Any] = Field(
        {"name": "auto"},
        description="Solver by name with its hyperparameters, as `optiprune solvers` lists them; "
        "'time_limit' (seconds a problem) may be added.",
    )

    @model_validator(mode="before")
    @classmethod
    def _under_preset(cls, table: Any) -> Any:
        return with_preset(table) if isinstance(table, Mapping) else table

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
        if sections.get("preset", self.preset) != self.preset:
            raise ConfigError(
                f"preset = '{sections['preset']}' cannot replace '{self.preset}' in a config, that "
                "holds every option already; make a new one with Config.from_table"
            )
        table = self.model_dump()
        for section, change in sections.items():
            if section != "solver" and isinstance(change, Mapping) and section in table:
                table[section] = {**table[section], **change}
            else:
                table[section] = change
        return validate(type(self), table)


def parse_pattern(pattern: str) -> tuple[int, int] | Block | None:
    """None for 'unstructured', (N, M) for 'N:M', a `Block` for 'block:RxC'.

    Raises `ConfigError` for anything else.
    """
    try:
        return parse(pattern)
    except PatternError as e:
        raise ConfigError(str(e)) from None


def load_config(path: str | Path) -> Config:
    """Read a `Config` from a TOML file. Raises `ConfigError`."""
    return Config.from_table(read_toml(path))
