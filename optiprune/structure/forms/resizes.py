"""Resizes that a model's own code calls: ``nn.functional.interpolate`` in a forward method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from optiprune.structure.trace import operation_of, place_of, trace
from optiprune.structure.units import Barrier

__all__ = ["resizes_in_code"]


def resizes_in_code(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Barrier, ...]:
    """Resize operations of no ``nn.Upsample`` that is registered in the model, each place once.

    Raises
    ------
    TraceError
        torch.export cannot follow the model.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    out: dict[Barrier, None] = {}
    for node in trace(model, args, kwargs).graph.nodes:
        if node.op != "call_function" or "upsample" not in operation_of(node):
            continue
        place = place_of(node, "a call in the model's code")
        if not isinstance(modules.get(place.module), nn.Upsample):
            out.setdefault(place)
    return tuple(out)
