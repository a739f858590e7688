"""Which units leave a model: a document that can be read, edited, saved and applied elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .groups import Structure
from .sizes import Kept, kept_of
from .surgery import Cut
from .units import Ids

__all__ = ["Plan", "PlanError", "cuts_of"]

_FORMAT = "optiprune structure plan"
_VERSION = 1


class PlanError(ValueError):
    """A plan that does not fit the model, or that is no plan."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Units to remove, by group.

    Attributes
    ----------
    removed : group's name -> numbers of its units, ascending
    sizes : group's name -> how many units it has in the model that the plan is for
    """

    removed: Mapping[str, tuple[int, ...]]
    sizes: Mapping[str, int]

    @classmethod
    def of(cls, structure: Structure, removed: Mapping[str, Iterable[int]]) -> Plan:
        """A plan for a model with these groups.

        Raises
        ------
        PlanError
            A group or a unit is not there, nothing of a group is left, or parts that must keep
            equally many units do not.
        """
        plan = cls(
            {k: tuple(sorted({int(u) for u in v})) for k, v in removed.items() if v},
            {g.name: g.size for g in structure.groups},
        )
        plan.check(structure)
        return plan

    def check(self, structure: Structure) -> None:
        """Raise `PlanError` unless the plan fits a model with these groups."""
        groups = {g.name: g for g in structure.groups}
        for name, units in self.removed.items():
            group = groups.get(name)
            if group is None:
                raise PlanError(f"no group is called {name!r}; there are {_some(groups)}")
            if self.sizes.get(name, group.size) != group.size:
                raise PlanError(
                    f"group {name!r} has {group.size} units, the plan was made for "
                    f"{self.sizes[name]}"
                )
            wrong = [u for u in units if not 0 <= u < group.size]
            if wrong:
                raise PlanError(f"group {name!r} has units 0 to {group.size - 1}, not {wrong[0]}")
            if len(units) == group.size:
                raise PlanError(
                    f"all {group.size} units of group {name!r} would leave: one must stay"
                )
        gone = {
            (i, u) for i, g in enumerate(structure.groups) for u in self.removed.get(g.name, ())
        }
        for balance in structure.balances:
            kept = [sum(pair not in gone for pair in part) for part in balance.parts]
            if len(set(kept)) > 1:
                raise PlanError(
                    f"parts that must keep equally many units would keep {sorted(set(kept))}: "
                    f"{balance.because}"
                )

    def kept(self, structure: Structure) -> Kept:
        """Group's number -> whether each of its units stays, for the groups that lose some."""
        number = {g.name: i for i, g in enumerate(structure.groups)}
        sizes = [g.size for g in structure.groups]
        return kept_of(sizes, {number[k]: v for k, v in self.removed.items()})

    def to_json(self) -> str:
        return json.dumps(
            {
                "format": _FORMAT,
                "version": _VERSION,
                "groups": {
                    name: {"units": self.sizes[name], "remove": list(units)}
                    for name, units in self.removed.items()
                },
            },
            indent=1,
        )

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Raises `PlanError` for a text that is no plan of this version."""
        try:
            table: Any = json.loads(text)
            if table["format"] != _FORMAT or table["version"] != _VERSION:
                raise PlanError(
                    f"format {table['format']!r}, version {table['version']!r}: only "
                    f"{_FORMAT!r}, version {_VERSION}, can be read"
                )
            groups = table["groups"].items()
            removed = {k: tuple(sorted({_index(u) for u in v["remove"]})) for k, v in groups}
            sizes = {k: _index(v["units"]) for k, v in groups}
        except PlanError as error:
            raise PlanError(str(error)[:300]) from None
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise PlanError(f"this is no structure plan: {repr(error)[:300]}") from error
        return cls(removed, sizes)

    def save(self, path: str | Path) -> None:
        Path(path).write_text(self.to_json() + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Raises `PlanError` for a file that is no plan of this version, OSError without one."""
        raw = Path(path).read_bytes()
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise PlanError(f"{path} is no structure plan: {error}") from None
        return cls.from_json(text)


def _index(value: object) -> int:
    """A number of a unit, or of units. Raises `PlanError`."""
    if type(value) is not int or not 0 <= value < 2**63:
        raise PlanError(f"this is no structure plan: {value!r:.80} is no number of units")
    return value


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")


def _gone(structure: Structure, plan: Plan) -> dict[tuple[str, int], Ids]:
    """(tensor, dimension) -> the indices that leave, ascending."""
    gone: dict[tuple[str, int], list[Ids]] = {}
    for group in structure.groups:
        for unit in plan.removed.get(group.name, ()):
            for m in group.members:
                if len(m.indices[unit]):
                    gone.setdefault((m.tensor, m.dim), []).append(m.indices[unit])
    return {key: np.unique(np.concatenate(parts)) for key, parts in gone.items()}


def cuts_of(
    structure: Structure, plan: Plan, shapes: Mapping[str, Sequence[int]]
) -> dict[str, Cut]:
    """What stays of every tensor that becomes smaller."""
    kept: dict[str, dict[int, Ids]] = {}
    for (tensor, dim), gone in _gone(structure, plan).items():
        kept.setdefault(tensor, {})[dim] = np.setdiff1d(np.arange(shapes[tensor][dim]), gone)
    columns: dict[str, Ids] = {}
    index = {g.name: i for i, g in enumerate(structure.groups)}
    removed = {(index[name], u) for name, units in plan.removed.items() for u in units}
    for block in structure.columns:
        stays = [[c for c, at in enumerate(row) if at not in removed] for row in block.units]
        if any(len(row) < len(block.units[0]) for row in stays):
            columns[block.weight] = np.array(stays, dtype=np.int64)
    return {
        name: Cut(kept.get(name, {}), columns.get(name))
        for name in dict.fromkeys([*kept, *columns])
    }
