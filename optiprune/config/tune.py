"""Options of the tuning after masks and refit."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .section import Section

__all__ = ["TuneOptions"]


class TuneOptions(Section):
    """A few passes that tune all kept weights with masks fixed; with `prune.refit` alone."""

    epochs: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        "auto",
        description="Passes over the calibration samples, by Adam; the pass with the lowest "
        "held-out loss stays (without held-out samples the last), none if all raised it. 0: none. "
        "'auto': as many as `work` allows, at least 2 and at most 20.",
    )
    work: float = Field(
        4e12,
        gt=0,
        description="Multiply-adds of the forward passes of all epochs together, for 'auto'.",
    )
    loss: Literal["auto", "kl", "mse", "task"] = Field(
        "auto",
        description="'kl': divergence from the dense model's outputs; 'mse': squared distance to "
        "them; 'task': prune.loss on the targets. 'auto': kl, or mse for float targets and single "
        "outputs. Only 'task' looks at labels.",
    )
    learning_rate: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        "auto",
        description="First step of Adam, in units of the root mean square of a layer's kept "
        "weights; it falls to 0 as a cosine. 'auto': 0.1 over the number of layers, at most 0.01.",
    )
    batch: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="Samples in a step. 'auto': 32, or an eighth of them if that is less."
    )
    mix: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of the samples that are mixed anew in every pass, so that few samples "
        "are learnt less by heart: weighted means of two, or of token sequences the beginning of "
        "one with the end of another. Not with loss = 'task'.",
    )
    cache_mib: int = Field(
        512,
        ge=0,
        description="Keep the dense model's outputs in memory if they take no more than this; else "
        "run the dense model again in every step.",
    )
