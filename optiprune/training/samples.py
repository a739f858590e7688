"""The user's data on the model's device, and what the model is called with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from optiprune.curvature import Batch, CalibrationSet
from optiprune.curvature.inputs import arguments_of, device_of
from optiprune.curvature.losses import logits_of
from optiprune.structure.modes import evaluating

__all__ = ["all_logits", "example_of", "samples_of", "without_targets"]

_CHUNK = 256


def samples_of(model: nn.Module, data: Iterable[Any] | CalibrationSet) -> CalibrationSet:
    """All samples, in memory. Raises `CalibrationError` for unfit data."""
    return CalibrationSet.collect(data, device_of(model))  # type: ignore[arg-type]


def without_targets(data: CalibrationSet) -> CalibrationSet:
    return CalibrationSet([Batch(b.inputs, None) for b in data.batches(data.n)])


def example_of(data: CalibrationSet) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of the first two samples."""
    return arguments_of(next(data.batches(2)).inputs)


@torch.no_grad()
def all_logits(model: nn.Module, data: CalibrationSet) -> Tensor:
    """(n, ...): the model's answers to all samples, in evaluation mode."""
    parts = []
    with evaluating(model):
        for batch in data.batches(_CHUNK):
            args, kwargs = arguments_of(batch.inputs)
            parts.append(logits_of(model(*args, **kwargs)))
    return torch.cat(parts)
