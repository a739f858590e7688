"""Options of the refit, and of masks that are chosen for the values after it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .section import GLOBAL, Section

__all__ = ["JointOptions", "RefitOptions"]


class RefitOptions(Section):
    """Least squares on the kept weights, with `prune.refit`."""

    damping: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        "auto",
        description="Added to the Gram diagonal, in units of its mean: how strongly weights are "
        "held at their dense values; raised tenfold (and reported) while a factorisation fails. "
        "'auto': for every layer what fits a fifth of the calibration samples best, fitted on the "
        "rest; then all of them are used.",
    )
    tolerance: float = Field(
        2e-6,
        gt=0,
        lt=1,
        description="Where the conjugate gradients of rows with large supports stop: the share of "
        "a row's error that their last four steps may have gained.",
    )
    steps: int = Field(
        10,
        ge=0,
        json_schema_extra=GLOBAL,
        description="Search steps after the refit, at the new values, followed by a second refit; "
        "what came before stays if the held-out loss is not lower in the end. 0: one refit; none "
        "if batches.steps is 0.",
    )


class JointOptions(Section):
    """Masks for weights that are re-fitted: best subsets, in reconstruction with `prune.refit`."""

    enabled: bool = Field(
        True,
        description="Choose each row's mask for the values after the refit, by the solver's "
        "answers to best-subset problems (MIQP), or with a pattern by sweeps over its groups, "
        "which need no solver. false, and without a pattern any solver that does not take MIQP: "
        "choose it for the values before, and refit once.",
    )
    start: Literal["admm", "initial"] = Field(
        "admm",
        description="'admm': the support that ADMM finds for the whole layer, where its error "
        "after the refit is lower than that of the first mask; 'initial': the first mask.",
    )
    size: int = Field(
        128, ge=2, description="Weights in a batch, half kept and half pruned; all others re-fit."
    )
    rounds: int = Field(
        2, ge=0, description="Batches of a row, one after the other, until one changes nothing."
    )
    rows: int = Field(
        2_500,
        ge=1,
        description="Rows that get batches or sweeps, in all layers together; where there are "
        "more, the same share of each layer's, those with the largest errors.",
    )
    sweeps: int = Field(
        4,
        ge=0,
        description="With a pattern, in place of batches: passes over the groups of a row, each "
        "group's best members with all other weights re-fitted, until one changes nothing.",
    )
