"""How many units every group keeps: least damage within budgets, exactly.

Every group has a menu of widths, each with the damage that it does. One binary variable a width
(one-hot); parameters, multiply-adds and bytes are sums of products of widths, and the product of
two groups' widths n_i n_j is linear in ``y_ia = [width of i is a] n_j``, which
``W_min x_ia <= y_ia <= W_max x_ia`` and ``sum_a y_ia = n_j`` fix exactly (Glover 1975). Latency
comes from a table over pairs of widths, through the products of their binary variables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from optiprune.structure import Extent, Product

from .errors import OutOfReachError, ShrinkingError
from .milp import MilpBuilder, solve_milp

__all__ = ["Budget", "Latency", "Menu", "Widths", "choose_widths"]


@dataclass(frozen=True, slots=True)
class Menu:
    """Widths of a group, ascending, and the damage of each."""

    widths: tuple[int, ...]
    damage: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.damage) or not self.widths:
            raise ShrinkingError(f"{len(self.widths)} widths with {len(self.damage)} damages")
        if list(self.widths) != sorted(set(self.widths)) or self.widths[0] < 0:
            raise ShrinkingError(f"widths must be ascending and not negative, got {self.widths}")
        if not np.isfinite(self.damage).all():
            raise ShrinkingError(f"damages must be finite, got {self.damage}")


@dataclass(frozen=True, slots=True, eq=False)
class Latency:
    """Seconds of one layer for pairs of widths.

    Attributes
    ----------
    groups : one or two groups' numbers
    seconds : by position in their menus; (widths,) or (widths, widths)
    """

    groups: tuple[int, ...]
    seconds: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Budget:
    """``constant`` + products of sizes + latencies, at most ``limit``.

    Attributes
    ----------
    name : "macs", "parameters", "memory" or "latency", for errors
    """

    name: str
    limit: float
    products: tuple[Product, ...] = ()
    latencies: tuple[Latency, ...] = ()
    constant: float = 0.0


@dataclass(frozen=True, slots=True)
class Widths:
    """What `choose_widths` returns.

    Attributes
    ----------
    widths : units that every group keeps
    damage : their sum
    bound : no widths within the budgets do less damage
    optimal : whether damage is the bound, within 0.01 %
    """

    widths: tuple[int, ...]
    damage: float
    bound: float
    optimal: bool


def choose_widths(
    menus: Sequence[Menu],
    sizes: Sequence[int],
    budgets: Sequence[Budget],
    *,
    equal: Sequence[tuple[int, int]] = (),
    solver: str = "highs",
    seconds: float = 60.0,
) -> Widths:
    """The widths of least damage.

    Parameters
    ----------
    sizes : units that every group has
    equal : pairs of groups that keep equally many
    solver, seconds : as in `solve_milp`

    Raises
    ------
    OutOfReachError
        No widths of the menus meet all budgets; the message says how far each budget can go.
    """
    model = _Model(menus, sizes)
    for i, j in equal:
        model.equate(i, j)
    for b in budgets:
        model.limit(b)
    found = solve_milp(model.program, solver=solver, seconds=seconds)
    if found is None:
        raise OutOfReachError(_out_of_reach(menus, sizes, budgets, equal, solver, seconds))
    return Widths(model.widths(found.x), found.value, found.bound, found.optimal)


class _Model:
    def __init__(self, menus: Sequence[Menu], sizes: Sequence[int]) -> None:
        self.menus, self.sizes = menus, sizes
        self.program = MilpBuilder()
        self.x = [[self.program.variable(d, binary=True) for d in m.damage] for m in menus]
        for of in self.x:
            self.program.row(dict.fromkeys(of, 1.0), 1.0, 1.0)
        self._gated: dict[tuple[int, int], list[int]] = {}
        self._pairs: dict[tuple[int, int], list[list[int]]] = {}

    def widths(self, x: npt.NDArray[np.float64]) -> tuple[int, ...]:
        return tuple(
            m.widths[int(np.argmax(x[of]))] for m, of in zip(self.menus, self.x, strict=True)
        )

    def equate(self, i: int, j: int) -> None:
        terms = self._width(i, 1.0)
        for v, c in self._width(j, -1.0).items():
            terms[v] = terms.get(v, 0.0) + c
        self.program.row(terms, 0.0, 0.0)

    def limit(self, budget: Budget) -> None:
        terms: dict[int, float] = {}
        constant = budget.constant
        for p in budget.products:
            for groups, c in _monomials(p, self.sizes).items():
                if not groups:
                    constant += c
                else:
                    self._add(terms, groups, c)
        for latency in budget.latencies:
            self._add_table(terms, latency)
        # one scale for all rows: limits run from seconds to billions of multiply-adds
        unit = max(abs(budget.limit), 1e-30)
        row = {v: c / unit for v, c in terms.items()}
        self.program.row(row, -np.inf, (budget.limit - constant) / unit)

    def _width(self, i: int, times: float) -> dict[int, float]:
        widths = self.menus[i].widths
        return {v: times * w for v, w in zip(self.x[i], widths, strict=True)}

    def _add(self, terms: dict[int, float], groups: tuple[int, ...], c: float) -> None:
        distinct = sorted(set(groups), key=lambda g: (len(self.menus[g].widths), g))
        if len(distinct) > 2:
            raise ShrinkingError(
                f"a product of the widths of {len(distinct)} groups: budgets know two at most"
            )
        i = distinct[0]
        power = groups.count(i)
        if len(distinct) == 1:
            found = {v: c * w**power for v, w in zip(self.x[i], self.menus[i].widths, strict=True)}
        else:
            j = distinct[1]
            if groups.count(j) > 1 or power > 1:
                raise ShrinkingError("a product of three widths: budgets know two at most")
            found = {v: c * w for v, w in zip(self._gate(i, j), self.menus[i].widths, strict=True)}
        for v, value in found.items():
            terms[v] = terms.get(v, 0.0) + value

    def _gate(self, i: int, j: int) -> list[int]:
        """y_ia = [width of i is a] times the width of j."""
        if (i, j) not in self._gated:
            low, high = self.menus[j].widths[0], self.menus[j].widths[-1]
            ys = [self.program.variable(upper=float(high)) for _ in self.x[i]]
            for x, y in zip(self.x[i], ys, strict=True):
                self.program.row({y: 1.0, x: -float(high)}, -np.inf, 0.0)
                self.program.row({y: 1.0, x: -float(low)}, 0.0, np.inf)
            whole = dict.fromkeys(ys, 1.0)
            whole.update(self._width(j, -1.0))
            self.program.row(whole, 0.0, 0.0)
            self._gated[i, j] = ys
        return self._gated[i, j]

    def _add_table(self, terms: dict[int, float], latency: Latency) -> None:
        if len(latency.groups) == 1:
            for v, s in zip(self.x[latency.groups[0]], latency.seconds.tolist(), strict=True):
                terms[v] = terms.get(v, 0.0) + s
            return
        i, j = latency.groups
        if (i, j) not in self._pairs:
            z = [[self.program.variable(upper=1.0) for _ in self.x[j]] for _ in self.x[i]]
            for a, x in enumerate(self.x[i]):
                self.program.row({**dict.fromkeys(z[a], 1.0), x: -1.0}, 0.0, 0.0)
            for b, x in enumerate(self.x[j]):
                self.program.row({**dict.fromkeys([r[b] for r in z], 1.0), x: -1.0}, 0.0, 0.0)
            self._pairs[i, j] = z
        for a, row in enumerate(self._pairs[i, j]):
            for b, v in enumerate(row):
                terms[v] = terms.get(v, 0.0) + float(latency.seconds[a, b])


def _monomials(p: Product, sizes: Sequence[int]) -> dict[tuple[int, ...], float]:
    """A product of sums of widths, multiplied out: groups of a term -> its coefficient."""
    out: dict[tuple[int, ...], float] = {(): p.coefficient}
    for e in p.extents:
        sums = _affine(e, sizes)
        grown: dict[tuple[int, ...], float] = {}
        for groups, c in out.items():
            for g, each in sums.items():
                key = tuple(sorted((*groups, *g)))
                grown[key] = grown.get(key, 0.0) + c * each
        out = {k: v for k, v in grown.items() if v}
    return out


def _affine(e: Extent, sizes: Sequence[int]) -> dict[tuple[int, ...], float]:
    out: dict[tuple[int, ...], float] = {(): float(e.fixed)} if e.fixed else {}
    for g, counts in e.counts.items():
        # units of one group have equally many indices, with few exceptions: their mean
        out[(g,)] = float(counts.sum()) / sizes[g]
    return out


def _out_of_reach(
    menus: Sequence[Menu],
    sizes: Sequence[int],
    budgets: Sequence[Budget],
    equal: Sequence[tuple[int, int]],
    solver: str,
    seconds: float,
) -> str:
    from optiprune.structure import total

    narrowest = [np.arange(s) < m.widths[0] for m, s in zip(menus, sizes, strict=True)]
    told = []
    for b in budgets:
        least = b.constant + total(b.products, dict(enumerate(narrowest)))
        least += sum(float(t.seconds.min()) for t in b.latencies)
        told.append(f"{b.name} can fall to {least:.4g}, {b.limit:.4g} was asked for")
    return "no widths meet the budgets: " + "; ".join(told)
