"""Which units of a group must stay in equal numbers, and which groups in equal widths.

Parts of a balance that hold equally many units of a group keep equally many of each group: enough
for the balance, and a demand on one group at a time. Parts that are whole groups tie their widths.
Groups of which neither is true keep all their units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from optiprune.structure import Balance, Structure

__all__ = ["Ties", "find_ties"]

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Ties:
    """What `find_ties` returns.

    Attributes
    ----------
    atoms : for every group the part of each of its units, (units,): parts are of one size, and
        keep equally many
    equal : pairs of groups of one width
    whole : groups that keep all their units
    """

    atoms: tuple[IntArray, ...]
    equal: tuple[tuple[int, int], ...]
    whole: frozenset[int]

    def parts(self, group: int) -> list[IntArray]:
        atoms = self.atoms[group]
        return [np.flatnonzero(atoms == a) for a in range(int(atoms.max()) + 1)]

    def step(self, group: int) -> int:
        """A width is a multiple of it."""
        return int(self.atoms[group].max()) + 1


def find_ties(structure: Structure) -> Ties:
    sizes = [g.size for g in structure.groups]
    labels: list[list[tuple[int, ...]]] = [[() for _ in range(n)] for n in sizes]
    equal: list[tuple[int, int]] = []
    whole: set[int] = set()
    for balance in structure.balances:
        groups = {g for part in balance.parts for g, _ in part if g >= 0}
        if _by_parts(balance, groups, labels):
            continue
        pairs = _by_widths(balance, sizes)
        if pairs is None:
            whole |= groups
        else:
            equal += pairs
    atoms: list[IntArray] = []
    for g, of in enumerate(labels):
        names = sorted(set(of))
        index = np.array([names.index(x) for x in of], dtype=np.int64)
        if len(set(np.bincount(index).tolist())) > 1:
            whole.add(g)
            index = np.zeros_like(index)
        atoms.append(index)
    # what is tied to a group that stays whole stays whole
    grown = True
    while grown:
        grown = False
        for i, j in equal:
            if (i in whole) != (j in whole):
                whole |= {i, j}
                grown = True
    pairs = [p for p in dict.fromkeys(equal) if p[0] not in whole]
    return Ties(tuple(atoms), tuple(pairs), frozenset(whole))


def _by_parts(balance: Balance, groups: set[int], labels: Sequence[list[tuple[int, ...]]]) -> bool:
    """Whether every part holds equally many of each group and of what stays; noted if so."""
    for g in (*groups, -1):
        counts = {sum(h == g for h, _ in part) for part in balance.parts}
        if len(counts) > 1:
            return False
    seen: dict[tuple[int, int], int] = {}
    for p, part in enumerate(balance.parts):
        times: dict[tuple[int, int], int] = {}
        for pair in part:
            times[pair] = times.get(pair, 0) + 1
        if len({n for (g, _), n in times.items() if g >= 0}) > 1:
            return False
        for pair in times:
            if pair[0] >= 0 and seen.setdefault(pair, p) != p:
                return False  # a unit of two parts
    for (g, unit), p in seen.items():
        labels[g][unit] = (*labels[g][unit], p)
    for g in groups:  # units that this balance does not name are a part of their own
        for unit in range(len(labels[g])):
            if (g, unit) not in seen:
                labels[g][unit] = (*labels[g][unit], -1)
    return True


def _by_widths(balance: Balance, sizes: Sequence[int]) -> list[tuple[int, int]] | None:
    """Pairs of groups, if every part is one whole group, each of its units once."""
    first = []
    for part in balance.parts:
        groups = {g for g, _ in part}
        if len(groups) != 1 or -1 in groups:
            return None
        (g,) = groups
        if sorted(u for _, u in part) != list(range(sizes[g])):
            return None
        first.append(g)
    return [(a, b) for a, b in pairwise(first) if a != b]
