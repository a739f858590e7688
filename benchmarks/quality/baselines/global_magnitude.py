"""Global magnitude: keep the largest weights of all layers together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from optiprune.curvature import CalibrationSet, PrunableLayer
from optiprune.curvature.losses import LossFunction

from .flat import FlatWeights, keep_largest
from .model_method import PrunedWeights, check_call

__all__ = ["GlobalMagnitude"]


@dataclass(frozen=True)
class GlobalMagnitude:
    """One threshold on ``|w|`` over all layers; ties go to the earlier weight. Needs no data.

    Han, Pool, Tran and Dally, "Learning both weights and connections for efficient neural
    networks", NeurIPS 2015, arXiv 1506.02626 (there a threshold a layer).
    """

    name: str = "global-magnitude"
    moves_weights: bool = False
    reference: str = "Han et al., NeurIPS 2015, arXiv 1506.02626; one threshold for all layers"

    def prune(
        self,
        model: nn.Module,
        layers: Sequence[PrunableLayer],
        data: CalibrationSet,
        *,
        density: float,
        loss: LossFunction,
        seed: np.random.SeedSequence,
        seconds: float | None = None,
    ) -> PrunedWeights:
        """As `ModelMethod.prune`; data, loss, seed and seconds are not looked at."""
        check_call(layers, density, seconds)
        flat = FlatWeights.of(model, layers)
        return flat.pruned(keep_largest(flat.dense.abs(), flat.count(density)))
