"""A random plan that takes about a third of every group and keeps every balance."""

from __future__ import annotations

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from optiprune.structure import Plan, Structure
from optiprune.structure.removal import balance_rows

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
    whole = np.array([[float(g == h) for h, _ in pairs] for g in tied])
    found = milp(
        -rng.uniform(0.5, 1.5, len(pairs)),
        constraints=[
            LinearConstraint(balance_rows(structure.balances, place), 0.0, 0.0),
            LinearConstraint(whole, 0.0, np.array([float(caps[g]) for g in tied])),
        ],
        integrality=np.ones(len(pairs)),
        bounds=Bounds(0.0, 1.0),
        options={"time_limit": 20.0, "mip_rel_gap": 0.05},
    )
    if found.x is None:
        return []
    return [pair for pair, x in zip(pairs, found.x, strict=True) if x > 0.5]
