"""The groups of a model whose removal was tried: what rules and the engine may choose from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from optiprune.structure import Structure, confirmed, find_structure

__all__ = ["known_structure"]


def known_structure(
    model: nn.Module, example: tuple[tuple[Any, ...], Mapping[str, Any]]
) -> Structure:
    """As `optiprune.structure.find_structure`, without groups that the model cannot really lose."""
    args, kwargs = example
    return confirmed(model, find_structure(model, args, kwargs), args, kwargs)
