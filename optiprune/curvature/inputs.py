"""What a model is called with, from a batch of calibration inputs, and on which device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

__all__ = ["arguments_of", "device_of"]


def arguments_of(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments: a table is passed by keyword."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if isinstance(inputs, tuple | list):
        return tuple(inputs), {}
    return (inputs,), {}


def device_of(model: nn.Module) -> torch.device:
    """That of its first parameter; the CPU for a model without."""
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device
