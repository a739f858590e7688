"""The user's data on the model's device, and what the model is called with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from optiprune.curvature import Batch, CalibrationSet
from optiprune.shrinking.inputs import arguments_of

__all__ = ["device_of", "example_of", "samples_of", "without_targets"]


def device_of(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def samples_of(model: nn.Module, data: Iterable[Any] | CalibrationSet) -> CalibrationSet:
    """All samples, in memory. Raises `CalibrationError` for unfit data."""
    return CalibrationSet.collect(data, device_of(model))  # type: ignore[arg-type]


def without_targets(data: CalibrationSet) -> CalibrationSet:
    return CalibrationSet([Batch(b.inputs, None) for b in data.batches(data.n)])


def example_of(data: CalibrationSet) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of the first two samples."""
    return arguments_of(next(data.batches(2)).inputs)
