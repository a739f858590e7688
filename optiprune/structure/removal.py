"""Units that may leave together: every balance stays one, every group keeps a unit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint, milp

from .groups import Structure

__all__ = ["balanced_removal", "largest_removal"]


def balanced_removal(structure: Structure, groups: Sequence[int]) -> dict[str, list[int]]:
    """One unit of every group, or as few as keep every balance; none of groups that cannot.

    The fewest units in all, by HiGHS: every group loses at least one, none all; equal parts stay
    equal.
    """
    wanted = set(groups)
    pairs = [(g, u) for g in sorted(wanted) for u in range(structure.groups[g].size)]
    tied = [b for b in structure.balances if any(g in wanted for part in b.parts for g, _ in part)]
    bound = {pair for b in tied for part in b.parts for pair in part}
    # most groups are in no balance: their last unit
    out: dict[str, list[int]] = {}
    for g in sorted(wanted):
        group = structure.groups[g]
        if group.size > 1 and not any((g, u) in bound for u in range(group.size)):
            out[group.name] = [group.size - 1]
    pairs = [p for p in pairs if structure.groups[p[0]].name not in out]
    if not pairs:
        return out
    place = {pair: i for i, pair in enumerate(pairs)}
    rows, low, high = [], [], []
    for b in tied:
        for part in b.parts[1:]:
            row = np.zeros(len(pairs))
            for sign, side in ((1.0, b.parts[0]), (-1.0, part)):
                for pair in side:
                    if pair in place:
                        row[place[pair]] += sign
            rows.append(row)
            low.append(0.0)
            high.append(0.0)
    slack = sorted({g for g, _ in pairs})
    for g in slack:
        row = np.zeros(len(pairs))
        for u in range(structure.groups[g].size):
            row[place[g, u]] = 1.0
        rows.append(row)
        low.append(0.0)
        high.append(structure.groups[g].size - 1.0)
    # a group that loses a unit is worth many units
    n = len(pairs)
    worth = [-(n + 1.0)] * len(slack)
    use = np.zeros((len(slack), n + len(slack)))
    for i, g in enumerate(slack):
        use[i, [place[g, u] for u in range(structure.groups[g].size)]] = -1.0
        use[i, n + i] = 1.0
    A = np.hstack([np.array(rows), np.zeros((len(rows), len(slack)))])
    found = milp(
        np.concatenate([np.ones(n), worth]),
        constraints=[LinearConstraint(A, low, high), LinearConstraint(use, -np.inf, 0.0)],
        integrality=np.ones(n + len(slack)),
        bounds=Bounds(0.0, 1.0),
        options={"time_limit": 10.0},
    )
    if found.x is not None:
        for pair, x in zip(pairs, found.x, strict=False):
            if x > 0.5:
                out.setdefault(structure.groups[pair[0]].name, []).append(pair[1])
    return out


def largest_removal(
    structure: Structure, allowed: Sequence[npt.NDArray[np.bool_]]
) -> dict[str, list[int]]:
    """As many of the allowed units as keep every balance, and one unit of every group.

    ``allowed`` : for every group which of its units may leave, (units,) bool
    """
    out: dict[str, list[int]] = {}
    bound = {g for b in structure.balances for part in b.parts for g, _ in part if g >= 0}
    for g, group in enumerate(structure.groups):
        units = np.flatnonzero(allowed[g]).tolist()
        if g not in bound and units:
            out[group.name] = units[1:] if len(units) == group.size else units
    pairs = [(g, int(u)) for g in sorted(bound) for u in np.flatnonzero(allowed[g])]
    if not pairs:
        return {k: v for k, v in out.items() if v}
    place = {pair: i for i, pair in enumerate(pairs)}
    rows: list[npt.NDArray[np.float64]] = []
    high: list[float] = []
    for b in structure.balances:
        counts = np.zeros((len(b.parts), len(pairs)))
        for i, part in enumerate(b.parts):
            for pair in part:
                if pair in place:
                    counts[i, place[pair]] += 1.0
        for row in counts[1:] - counts[0]:
            rows += [row, -row]
            high += [0.0, 0.0]
    for g in sorted(bound):
        rows.append(np.array([float(pair[0] == g) for pair in pairs]))
        high.append(structure.groups[g].size - 1.0)
    found = milp(
        -np.ones(len(pairs)),
        constraints=LinearConstraint(np.array(rows), -np.inf, np.array(high)),
        integrality=np.ones(len(pairs)),
        bounds=Bounds(0.0, 1.0),
        options={"time_limit": 10.0},
    )
    if found.x is not None:
        for pair, x in zip(pairs, found.x, strict=True):
            if x > 0.5:
                out.setdefault(structure.groups[pair[0]].name, []).append(pair[1])
    return {k: v for k, v in out.items() if v}
