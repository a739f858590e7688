"""What a model is called with, from a batch of calibration inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["arguments_of"]


def arguments_of(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments: a table is passed by keyword."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if isinstance(inputs, tuple | list):
        return tuple(inputs), {}
    return (inputs,), {}
