"""What the user's functions must return; each check raises `InputError` with what came instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["as_iterable", "as_module", "as_numbers"]


def as_module(key: str, reference: str, value: Any) -> nn.Module:
    """A model: of the function ``reference``, which the option ``key`` names."""
    from torch import nn

    if not isinstance(value, nn.Module):
        raise InputError(
            f"{key} = {reference!r} must return a torch.nn.Module, got a {type(value).__name__}"
        )
    return value


def as_iterable(key: str, value: Any) -> Iterable[Any]:
    """Batches."""
    if not isinstance(value, Iterable):
        raise InputError(f"{key} must return an iterable of batches, got a {type(value).__name__}")
    return value


def as_numbers(key: str, value: Any) -> dict[str, float]:
    """Names and numbers, such as an accuracy."""
    if not isinstance(value, Mapping) or not all(isinstance(v, Real) for v in value.values()):
        raise InputError(
            f"{key} must return a table of numbers such as {{'accuracy': 0.97}}, got {value!r}"
        )
    return {str(k): float(v) for k, v in value.items()}
