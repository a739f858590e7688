"""Options of the tuning of each block after its layers are pruned."""

from __future__ import annotations

from pydantic import Field

from .section import Section

__all__ = ["WindowOptions"]


class WindowOptions(Section):
    """Passes over each block of a chain (a transformer's block, a residual block) that tune its
    kept weights toward the dense block's output; in reconstruction with `prune.refit`."""

    epochs: int = Field(
        0,
        ge=0,
        description="Passes over the calibration samples for each block of two layers or more, by "
        "Adam; the pass with the lowest held-out error stays. 0: none.",
    )
    learning_rate: float = Field(
        2e-3,
        gt=0,
        description="First step of Adam, in units of the root mean square of a layer's kept "
        "weights; it falls to 0 as a cosine.",
    )
    batch: int = Field(4, ge=1, description="Samples in a step.")
