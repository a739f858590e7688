"""How the densities of the layers were chosen, for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["AllocatedLayer", "AllocationReport"]


@dataclass(frozen=True, slots=True)
class AllocatedLayer:
    """What one layer was given.

    Attributes
    ----------
    name : of the layer
    kept, total : weights
    outliers : share of its weights that are outliers ('owl'), else None
    levels : (density, damage) as measured, by rising density ('knapsack'), else empty
    """

    name: str
    kept: int
    total: int
    outliers: float | None = None
    levels: tuple[tuple[float, float], ...] = ()

    @property
    def density(self) -> float:
        return self.kept / self.total


@dataclass(frozen=True, slots=True)
class AllocationReport:
    """The common budget and how it was shared out; layers with a sparsity of their own stand apart.

    Attributes
    ----------
    method : "uniform", "owl" or "knapsack"
    budget : "parameters", "flops" or "bytes"
    limit, spent : of the budget: weights, multiply-adds of one sample, or bytes
    curve : what 'knapsack' measured: "fisher", "layer-error" or "loss"; else None
    predicted, predicted_uniform : sum of the layers' damages, interpolated from the measurements,
        with these densities and with equal ones; None without measurements
    seconds : wall-clock time of measuring and choosing
    layers : in the order of the model
    """

    method: str
    budget: str
    limit: float
    spent: float
    curve: str | None
    predicted: float | None
    predicted_uniform: float | None
    seconds: float
    layers: tuple[AllocatedLayer, ...]

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> AllocationReport:
        """The report that `dataclasses.asdict` made the table of; JSON may lie between."""
        rows = [
            AllocatedLayer(**{**row, "levels": tuple((d, e) for d, e in row["levels"])})
            for row in table["layers"]
        ]
        return cls(**{**table, "layers": tuple(rows)})
