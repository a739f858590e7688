"""Units that may leave together: every balance stays one, every group keeps a unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint, milp

from .groups import Balance, Structure

__all__ = ["balance_rows", "balanced_removal", "largest_removal"]


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
    balance = balance_rows(tied, place)
    slack = sorted({g for g, _ in pairs})
    whole = np.array([[float(g == h) for h, _ in pairs] for g in slack])
    # a group that loses a unit is worth many units
    n = len(pairs)
    lost = np.eye(len(slack))
    found = _solve(
        np.concatenate([np.ones(n), [-(n + 1.0)] * len(slack)]),
        LinearConstraint(np.pad(balance, ((0, 0), (0, len(slack)))), 0.0, 0.0),
        LinearConstraint(np.hstack([whole, 0.0 * lost]), -np.inf, _most(structure, slack)),
        LinearConstraint(np.hstack([-whole, lost]), -np.inf, 0.0),
    )
    return out | _removed(structure, pairs, found)


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
    groups = sorted({g for g, _ in pairs})
    whole = np.array([[float(g == h) for h, _ in pairs] for g in groups])
    found = _solve(
        -np.ones(len(pairs)),
        LinearConstraint(balance_rows(structure.balances, place), 0.0, 0.0),
        LinearConstraint(whole, -np.inf, _most(structure, groups)),
    )
    return {k: v for k, v in (out | _removed(structure, pairs, found)).items() if v}


def balance_rows(
    balances: Sequence[Balance], place: Mapping[tuple[int, int], int]
) -> npt.NDArray[np.float64]:
    """A row for each part but a balance's first: how many more units leave it than the first."""
    rows = np.zeros((0, len(place)))
    for b in balances:
        counts = np.zeros((len(b.parts), len(place)))
        for i, part in enumerate(b.parts):
            for pair in part:
                if pair in place:
                    counts[i, place[pair]] += 1.0
        rows = np.vstack([rows, counts[1:] - counts[0]])
    return rows


def _most(structure: Structure, groups: Sequence[int]) -> npt.NDArray[np.float64]:
    """All units of each group but one."""
    return np.array([structure.groups[g].size - 1.0 for g in groups])


def _solve(
    cost: npt.NDArray[np.float64], *constraints: LinearConstraint
) -> npt.NDArray[np.bool_] | None:
    """The best 0/1 values by HiGHS, or the best that 10 seconds found, or None."""
    found = milp(
        cost,
        constraints=[c for c in constraints if len(c.A)],
        integrality=np.ones(len(cost)),
        bounds=Bounds(0.0, 1.0),
        options={"time_limit": 10.0},
    )
    return None if found.x is None else found.x > 0.5


def _removed(
    structure: Structure,
    pairs: Sequence[tuple[int, int]],
    leaves: npt.NDArray[np.bool_] | None,
) -> dict[str, list[int]]:
    out: dict[str, list[int]] = {}
    for (g, u), gone in zip(pairs, () if leaves is None else leaves.tolist(), strict=False):
        if gone:
            out.setdefault(structure.groups[g].name, []).append(u)
    return out
