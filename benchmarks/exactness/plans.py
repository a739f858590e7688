"""A random plan that takes about a third of every group and keeps every balance."""

from __future__ import annotations

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from optiprune.structure import Plan, Structure

__all__ = ["random_plan"]


def random_plan(structure: Structure, seed: int, most: float = 0.38) -> Plan:
    """Every group loses ``most`` of its units, as far as the balances allow it.

    Groups in no balance draw their units; those in balances take the units of the greatest random
    weight, by HiGHS, such that equal parts stay equal.
    """
    rng = np.random.default_rng(seed)
    sizes = [g.size for g in structure.groups]
    caps = [min(n - 1, max(1, int(most * n))) for n in sizes]
    tied = {g for b in structure.balances for part in b.parts for g, _ in part if g >= 0}
    removed: dict[str, list[int]] = {}
    for g, group in enumerate(structure.groups):
        if g not in tied:
            removed[group.name] = rng.permutation(group.size)[: caps[g]].tolist()
    for g, unit in _tied(structure, sorted(tied), caps, rng):
        removed.setdefault(structure.groups[g].name, []).append(unit)
    return Plan.of(structure, removed)


def _tied(
    structure: Structure, tied: list[int], caps: list[int], rng: np.random.Generator
) -> list[tuple[int, int]]:
    pairs = [(g, u) for g in tied for u in range(structure.groups[g].size)]
    if not pairs:
        return []
    place = {pair: i for i, pair in enumerate(pairs)}
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    low: list[float] = []
    high: list[float] = []

    def add(row: list[tuple[int, float]], least: float, at_most: float) -> None:
        for column, value in row:
            rows.append(len(low))
            columns.append(column)
            values.append(value)
        low.append(least)
        high.append(at_most)

    for b in structure.balances:
        for part in b.parts[1:]:
            add(
                [(place[p], 1.0) for p in b.parts[0] if p in place]
                + [(place[p], -1.0) for p in part if p in place],
                0.0,
                0.0,
            )
    for g in tied:
        add([(place[g, u], 1.0) for u in range(structure.groups[g].size)], 0.0, float(caps[g]))
    table = coo_array((values, (rows, columns)), shape=(len(low), len(pairs))).tocsr()
    found = milp(
        -rng.uniform(0.5, 1.5, len(pairs)),
        constraints=[LinearConstraint(table, low, high)],
        integrality=np.ones(len(pairs)),
        bounds=Bounds(0.0, 1.0),
        options={"time_limit": 20.0, "mip_rel_gap": 0.05},
    )
    if found.x is None:
        return []
    return [pair for pair, x in zip(pairs, found.x, strict=True) if x > 0.5]
