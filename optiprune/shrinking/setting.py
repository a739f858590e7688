"""What a search starts from: samples, how the model is called with them, and the loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from optiprune.curvature import CalibrationSet
from optiprune.curvature.inputs import arguments_of, device_of
from optiprune.curvature.losses import LossFunction, has_true_fisher, resolve_loss

from .errors import ShrinkingError

__all__ = ["Setting", "setting_of"]


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """What `setting_of` returns.

    Attributes
    ----------
    data : on the model's device
    args, kwargs : the first two samples, as the model is called with them
    loss : of outputs and targets
    own : whether targets are the model's own outputs, not labels
    """

    data: CalibrationSet
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    loss: LossFunction
    own: bool


def setting_of(
    model: nn.Module, data: Iterable[Any], loss: str | LossFunction, *, draws: bool
) -> Setting:
    """Data collected, "auto" resolved: labels where there are any, else the model's own outputs.

    Parameters
    ----------
    draws : whether labels will be drawn from the model's outputs

    Raises
    ------
    ShrinkingError
        Labels are to be drawn, and the loss knows none.
    CalibrationError
        Unfit data or targets.
    """
    collected = CalibrationSet.collect(data, device_of(model))
    args, kwargs = arguments_of(next(iter(collected.batches(2))).inputs)
    if loss == "auto" and not collected.has_targets:
        loss = "kl"
    function = resolve_loss(loss, next(iter(collected.batches(1))).targets)
    if draws and not has_true_fisher(function):
        raise ShrinkingError(
            "objective 'global' and gates of blocks draw labels from the model's outputs: they "
            "need the loss 'cross_entropy', 'mse' or 'kl', not a callable"
        )
    return Setting(collected, args, kwargs, function, loss == "kl")
