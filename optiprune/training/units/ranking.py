"""The units of the lowest scores, as many as a budget wants away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from optiprune.shrinking.budgets import budgets_of
from optiprune.shrinking.ties import find_ties
from optiprune.shrinking.widths import Budget
from optiprune.structure import Plan, Structure, total
from optiprune.training.errors import TrainingError

__all__ = ["Chain", "Move", "lowest_units", "plan_of", "removal_chains", "removal_order"]

Move = tuple[tuple[int, tuple[int, ...]], ...]
"""Units that leave together: (group's number, its units)."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Groups that lose equally many units, and the order in which these leave.

    Attributes
    ----------
    groups : their numbers
    moves : what leaves at a time, the lowest score first
    costs : mean score of each move, ascending
    """

    groups: tuple[int, ...]
    moves: tuple[Move, ...]
    costs: tuple[float, ...]


def removal_chains(
    structure: Structure,
    scores: Mapping[str, npt.NDArray[np.float64]],
    *,
    minimum: float = 0.1,
) -> list[Chain]:
    """For all groups that can lose units the order in which they leave, the lowest score first.

    Units that must leave in equal numbers leave together, each the lowest of its part.

    Parameters
    ----------
    scores : group's name -> what each of its units is worth, (units,); groups without stay whole
    minimum : share of its units that every group keeps at least; one unit in any case

    Raises
    ------
    TrainingError
        A group that does not exist, a wrong number of scores, a score that is NaN.
    """
    number = {g.name: i for i, g in enumerate(structure.groups)}
    if not 0 <= minimum <= 1:
        raise TrainingError(f"minimum = {minimum} must be in [0, 1]")
    for name, s in scores.items():
        if name not in number:
            raise TrainingError(f"no group is called {name!r}; there are {list(number)[:8]}")
        size = structure.groups[number[name]].size
        if s.shape != (size,):
            raise TrainingError(f"group {name!r} has {size} units, not scores {s.shape}")
        if np.isnan(s).any():
            raise TrainingError(f"{int(np.isnan(s).sum())} scores of group {name!r} are NaN")
    ties = find_ties(structure)
    free = {number[name] for name in scores} - ties.whole
    chains = [
        _chain(structure, scores, tied, [ties.parts(g) for g in tied], minimum)
        for tied in _components(free, ties.equal)
    ]
    return [c for c in chains if c.moves]


def removal_order(chains: Sequence[Chain]) -> list[Move]:
    """The moves of all chains, the lowest score first; those of one chain in its order."""
    entries = [(cost, c, i) for c, chain in enumerate(chains) for i, cost in enumerate(chain.costs)]
    return [chains[c].moves[i] for _, c, i in sorted(entries)]


def _components(free: set[int], equal: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Groups that lose equally many; those tied to one that is not free are left out."""
    of = {g: g for pair in equal for g in pair} | {g: g for g in free}

    def root(g: int) -> int:
        while of[g] != g:
            g = of[g]
        return g

    for i, j in equal:
        of[root(i)] = root(j)
    together: dict[int, list[int]] = {}
    for g in sorted(of):
        together.setdefault(root(g), []).append(g)
    return [gs for gs in together.values() if all(g in free for g in gs)]


def _chain(
    structure: Structure,
    scores: Mapping[str, npt.NDArray[np.float64]],
    groups: Sequence[int],
    parts: Sequence[Sequence[npt.NDArray[np.int64]]],
    minimum: float,
) -> Chain:
    """Moves within groups that lose equally many units."""
    per_move = int(np.lcm.reduce([len(p) for p in parts]))
    least = max(max(1, int(np.ceil(minimum * structure.groups[g].size - 1e-9))) for g in groups)
    size = min(structure.groups[g].size for g in groups)
    queues = []
    for g, of in zip(groups, parts, strict=True):
        s = scores[structure.groups[g].name]
        queues.append([part[np.argsort(s[part], kind="stable")] for part in of])
    moves: list[Move] = []
    costs: list[float] = []
    for m in range((size - least) // per_move):
        move, values = [], []
        for g, of in zip(groups, queues, strict=True):
            each = per_move // len(of)
            units = np.concatenate([q[m * each : (m + 1) * each] for q in of])
            values.append(scores[structure.groups[g].name][units])
            move.append((g, tuple(int(u) for u in units)))
        moves.append(tuple(move))
        costs.append(float(np.concatenate(values).mean()))
    return Chain(tuple(groups), tuple(moves), tuple(costs))


def lowest_units(
    structure: Structure,
    scores: Mapping[str, npt.NDArray[np.float64]],
    shares: Mapping[str, float | None],
    *,
    minimum: float = 0.1,
) -> Plan:
    """The plan that removes the units of the lowest scores until budgets are met.

    Parameters
    ----------
    scores, minimum : as for `removal_chains`
    shares : budgets for "parameters", "macs" and "memory": shares up to 1, or costs

    Raises
    ------
    TrainingError
        A bad score, or budgets that cannot be met; the message says how far each can go.
    """
    order = removal_order(removal_chains(structure, scores, minimum=minimum))
    budgets = budgets_of(structure, shares)
    low, high = 0, len(order)
    if not _meets(structure, order, budgets):
        kept = _kept(structure, order)
        reach = ", ".join(
            f"{b.name} can fall to {total(b.products, kept):.4g}, {b.limit:.4g} was asked for"
            for b in budgets
        )
        raise TrainingError(f"no number of units meets the budgets: {reach}")
    while low < high:  # costs only fall as more units leave
        middle = (low + high) // 2
        if _meets(structure, order[:middle], budgets):
            high = middle
        else:
            low = middle + 1
    return plan_of(structure, order[:low])


def plan_of(structure: Structure, moves: Sequence[Move]) -> Plan:
    removed: dict[str, list[int]] = {}
    for move in moves:
        for g, units in move:
            removed.setdefault(structure.groups[g].name, []).extend(units)
    return Plan.of(structure, removed)


def _kept(structure: Structure, moves: Sequence[Move]) -> dict[int, npt.NDArray[np.bool_]]:
    kept = {i: np.ones(g.size, dtype=bool) for i, g in enumerate(structure.groups)}
    for move in moves:
        for g, units in move:
            kept[g][list(units)] = False
    return kept


def _meets(structure: Structure, moves: Sequence[Move], budgets: Sequence[Budget]) -> bool:
    kept = _kept(structure, moves)
    return all(total(b.products, kept) <= b.limit * (1 + 1e-9) for b in budgets)
