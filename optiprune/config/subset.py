"""Options of the best subset on the Fisher model."""

from __future__ import annotations

from pydantic import Field

from .section import Section

__all__ = ["SubsetOptions"]


class SubsetOptions(Section):
    """Masks and values together on the Fisher model, with `prune.refit`."""

    rounds: int = Field(
        0,
        ge=0,
        description="Times that the loss is linearised anew, after the search of each stage of the "
        "schedule and once more after the refit of the layers: the kept weights move to the "
        "model's minimum, and batches are exchanged there. 0: values come from the layers alone.",
    )
    samples: int = Field(
        1000, ge=1, description="Calibration samples of the Fisher matrix, at most."
    )
    size: int = Field(
        128, ge=2, description="Weights in a batch, half kept and half pruned; all others re-fit."
    )
    exchanges: int = Field(
        20, ge=0, description="Batches solved in a round, until one changes nothing."
    )
    ridge: float = Field(
        1e-3,
        gt=0,
        description="Trust-region ridge of the first round, absolute; fourfold after a try that "
        "raised the held-out loss, halved after a round that lowered it.",
    )
