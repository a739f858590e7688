"""Sizes that a program keeps as numbers on its modules: ``num_heads``, ``split_size``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from .groups import Structure
from .plan import Plan
from .surgery import Cut

__all__ = ["AttributeChange", "attribute_changes", "set_attributes"]


@dataclass(frozen=True, slots=True)
class AttributeChange:
    """A number on a module that repeats a size which changes."""

    module: str
    attribute: str
    before: int
    after: int


def attribute_changes(
    model: nn.Module,
    structure: Structure,
    plan: Plan,
    cuts: Mapping[str, Cut],
    shapes: Mapping[str, Sequence[int]],
) -> tuple[AttributeChange, ...]:
    """Numbers on the modules around each group that equal a size which the plan changes.

    These modules are the innermost that holds all tensors of the group, and those between it and
    the layers. A number that equals two sizes with different futures is left alone. Whether the
    numbers mean these sizes, the comparison with the masked model has to say.
    """
    sizes: dict[str, dict[int, set[int]]] = {}
    for group in structure.groups:
        removed = plan.removed.get(group.name, ())
        if not removed:
            continue
        for around in _around([m.tensor for m in group.members]):
            found = sizes.setdefault(around, {})
            found.setdefault(group.size, set()).add(group.size - len(removed))
            for m in group.members:
                before = shapes[m.tensor][m.dim]
                after = len(cuts[m.tensor].kept.get(m.dim, range(before)))
                found.setdefault(before, set()).add(after)
    out = []
    for name, futures in sizes.items():
        for attribute, value in vars(model.get_submodule(name)).items():
            if type(value) is int and len(futures.get(value, ())) == 1 and value > 1:
                after = next(iter(futures[value]))
                if after != value:
                    out.append(AttributeChange(name, attribute, value, after))
    return tuple(out)


def set_attributes(model: nn.Module, changes: Sequence[AttributeChange]) -> None:
    for c in changes:
        setattr(model.get_submodule(c.module), c.attribute, c.after)


def _around(tensors: Sequence[str]) -> list[str]:
    """The innermost module that holds them all, beyond their own owners, and those inside it."""
    paths = [t.split(".")[:-2] for t in tensors]
    shared = 0
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared += 1
    return list(dict.fromkeys(".".join(p[:n]) for p in paths for n in range(shared, len(p) + 1)))
