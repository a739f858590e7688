"""What a method that prunes a whole model by its loss offers to the benchmark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

import numpy as np
from torch import Tensor, nn

from optiprune.curvature import CalibrationSet, PrunableLayer
from optiprune.curvature.losses import LossFunction, divergence

__all__ = ["ModelMethod", "PrunedWeights", "check_call", "dense_targets"]

PrunedWeights: TypeAlias = tuple[dict[str, Tensor], dict[str, Tensor]]
"""(masks, values): parameter name -> bool mask (True = keep), and the weights, zero off the mask;
both in the shape of the parameter, the values in its dtype and on its device."""


class ModelMethod(Protocol):
    """A pruning method that decides over all layers together.

    Attributes
    ----------
    name : how tables call it
    moves_weights : whether kept weights get other values than the dense model's
    reference : where the method is from, one line
    """

    @property
    def name(self) -> str: ...
    @property
    def moves_weights(self) -> bool: ...
    @property
    def reference(self) -> str: ...

    def prune(
        self,
        model: nn.Module,
        layers: Sequence[PrunableLayer],
        data: CalibrationSet,
        *,
        density: float,
        loss: LossFunction,
        seed: np.random.SeedSequence,
        seconds: float | None,
    ) -> PrunedWeights:
        """Masks and values at ``density``, counted over the weights of all ``layers``.

        Parameters
        ----------
        model : dense; it is not written to
        data : calibration samples, with targets unless ``loss`` works without
        density : share of the weights to keep, 0 .. 1
        loss : as of `optiprune.curvature.losses.resolve_loss`; with 'kl' the model's own outputs
            are the targets and labels are drawn from them for the Fisher matrix
        seed : of every random choice
        seconds : time after which the method takes the shortest way to the end; None: no limit

        Raises
        ------
        ValueError
            An argument out of range; the message names it.
        optiprune.curvature.CalibrationError
            The loss cannot be taken on these data.
        """
        ...


def check_call(
    layers: Sequence[PrunableLayer], density: float, seconds: float | None, **options: float
) -> None:
    """Refuse what no method can work with, before any work. ``options`` must be finite and >= 0.

    Raises
    ------
    ValueError
        Names the argument and its value.
    """
    if not layers:
        raise ValueError("layers is empty: there is nothing to prune")
    if not 0.0 <= density <= 1.0:
        raise ValueError(f"density must be between 0 and 1, got {density!r}")
    if seconds is not None and not seconds > 0:
        raise ValueError(f"seconds must be above 0 (or None for no limit), got {seconds!r}")
    for name, value in options.items():
        if not 0.0 <= value < math.inf:
            raise ValueError(f"{name} must be a finite number >= 0, got {value!r}")


def dense_targets(loss: LossFunction, dense: Mapping[str, Tensor]) -> Mapping[str, Tensor] | None:
    """The weights whose outputs are the targets: the dense model's for 'kl', None otherwise."""
    return dense if loss is divergence else None
