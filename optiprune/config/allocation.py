"""Options of the allocation: how dense each layer should be."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from .section import Section

__all__ = ["AllocationOptions"]


class AllocationOptions(Section):
    """How dense each layer is; layers under `layers.sparsity` keep the density given there."""

    method: Literal["auto", "uniform", "owl", "knapsack"] = Field(
        "auto",
        description="'uniform': the same density in every layer; 'owl': denser where a layer has "
        "more outlying weights (Yin et al. 2023); 'knapsack': the densities with the least sum of "
        "measured damages, solved exactly. 'auto': knapsack in reconstruction without a pattern or "
        "a scope of one's own, else uniform. With scope 'global' the result is the first mask's, "
        "and the search moves weights between layers.",
    )
    budget: Literal["parameters", "flops", "bytes"] = Field(
        "parameters",
        description="What prune.sparsity saves a share of: kept weights; multiply-adds of one "
        "sample; or bytes, where a layer takes its kept values and one bit a weight for the mask.",
    )
    curve: Literal["auto", "fisher", "layer-error", "loss"] = Field(
        "auto",
        description="Damage that 'knapsack' measures, one layer pruned at a time. 'loss': rise "
        "of the model's loss on held-out samples (prune.loss; 'auto' in reconstruction: 'kl', no "
        "labels), one run of the model for each layer and level. 'fisher': the rise that the "
        "errors of the layer's outputs predict, each weighted by the loss's curvature there, which "
        "one pass measures. 'layer-error': squared error of the layer's output over its mean "
        "square. 'auto': loss for up to 8 layers, else fisher; layer-error where the loss is a "
        "callable of one's own.",
    )
    levels: int = Field(
        9, ge=2, description="Densities at which each layer is measured, in equal ratios."
    )
    span: float = Field(
        4.0,
        gt=1,
        description="Levels go from the common density divided by this to the density times this, "
        "at most 1. A layer may also stay whole.",
    )
    densities: tuple[float, ...] = Field(
        (), description="Levels to measure, each in (0, 1), in place of `levels` and `span`."
    )
    samples: int = Field(
        4000,
        ge=1,
        description="Calibration samples for the fits of 'knapsack', at most.",
    )
    judging: int = Field(
        1000,
        ge=1,
        description="Held-out samples that damages are measured on, at most.",
    )
    rows: int = Field(
        64,
        ge=1,
        description="Rows of a layer, drawn at random, that stand for all in 'fisher' and "
        "'layer-error'.",
    )
    owl_threshold: float = Field(
        5.0,
        gt=0,
        description="A weight is an outlier if |w| times its input's norm is more than this times "
        "the layer's mean.",
    )
    owl_range: float = Field(
        0.08,
        ge=0,
        le=1,
        description="A density of 'owl' is off the common one by no more than this, nor by more "
        "than half of it.",
    )

    @field_validator("densities")
    @classmethod
    def _check_densities(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        for density in value:
            if not 0.0 < density < 1.0:
                raise ValueError(f"each density must be in (0, 1), got {density:g}")
        if len(set(value)) != len(value):
            raise ValueError(f"each density may stand once, got {list(value)}")
        return tuple(sorted(value))
