"""Whether the groups that the operations show are groups that the program can lose units of.

A program may hold sizes that no operation shows: ``x.reshape(b, t, 3, heads, width // heads)`` with
numbers from its constructor. So every group loses some of its units once, all of them together;
where the smaller model is not the masked one, halves are tried until the groups at fault are found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from .gate import GateError
from .groups import Group, Held, Structure
from .plan import Plan
from .removal import balanced_removal
from .shrink import shrink
from .units import Barrier, Units

__all__ = ["confirmed"]


def confirmed(
    model: nn.Module, structure: Structure, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Structure:
    """The structure without the groups that fail, which are held with what failed."""
    faults: dict[int, Barrier] = {}

    def fails(trial: Sequence[int]) -> str | None:
        removed = balanced_removal(structure, trial)
        if not removed:
            return None
        try:
            plan = Plan.of(structure, removed)
            shrink(model, plan, args, kwargs, structure=structure, latency_repeats=0)
        except GateError as error:
            return str(error)
        return None

    def search(trial: Sequence[int]) -> None:
        why = fails(trial)
        if why is None:
            return
        if len(trial) == 1:
            group = structure.groups[trial[0]]
            faults[trial[0]] = Barrier("program", f"it fixes this size: {why}", group.name)
            return
        half = len(trial) // 2
        before = len(faults)
        search(trial[:half])
        search(trial[half:])
        if len(faults) == before:  # it fails only where both halves lose units
            for g in trial:
                name = structure.groups[g].name
                faults[g] = Barrier("program", f"it fixes sizes together: {why}", name)

    together = _linked(structure)
    search([g for part in together for g in part])
    return _without(structure, faults, together)


def _linked(structure: Structure) -> list[list[int]]:
    """Groups that share a balance stand together, and fail together."""
    units = Units()
    ids = units.new((len(structure.groups),))
    for b in structure.balances:
        here = ids[sorted({g for part in b.parts for g, _ in part if g >= 0})]
        units.merge(here[1:], here[:1])
    out: dict[int, list[int]] = {}
    for g, root in enumerate(units.roots(ids).tolist()):
        out.setdefault(root, []).append(g)
    return list(out.values())


def _without(
    structure: Structure, faults: Mapping[int, Barrier], together: Sequence[Sequence[int]]
) -> Structure:
    if not faults:
        return structure
    gone: dict[int, Barrier] = {}
    for part in together:
        why = next((faults[g] for g in part if g in faults), None)
        if why is not None:
            gone.update(dict.fromkeys(part, why))
    number = {}
    kept: list[Group] = []
    held = list(structure.held)
    for g, group in enumerate(structure.groups):
        if g in gone:
            for m in group.members:
                held.append(Held(m.tensor, m.dim, sum(map(len, m.indices)), gone[g]))
        else:
            number[g] = len(kept)
            kept.append(group)

    def renumbered(parts: Any) -> Any:
        return tuple(
            tuple((number[g], u) if g in number else (-1, -1) for g, u in part) for part in parts
        )

    balances = tuple(
        replace(b, parts=renumbered(b.parts))
        for b in structure.balances
        if any(g in number for part in b.parts for g, _ in part)
    )
    columns = tuple(replace(c, units=renumbered(c.units)) for c in structure.columns)
    return replace(
        structure,
        groups=tuple(kept),
        balances=balances,
        held=tuple(held),
        columns=columns,
        parameters=tuple(p.renumbered(number) for p in structure.parameters),
        multiply_adds=tuple(p.renumbered(number) for p in structure.multiply_adds),
        values=tuple(replace(v, bytes=v.bytes.renumbered(number)) for v in structure.values),
    )
