"""Widths by the program against all widths tried one by one."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune.shrinking.errors import ShrinkingError
from optiprune.shrinking.widths import Budget, Latency, Menu, choose_widths
from optiprune.structure import Extent, Product, total

SIZES = [6, 4, 5]


def extent(fixed: int, **each: int) -> Extent:
    return Extent(
        fixed, {int(k[1:]): np.full(SIZES[int(k[1:])], n, dtype=np.int64) for k, n in each.items()}
    )


# a chain of layers, one that joins two groups, one whose both sides are one group, a plain one
PRODUCTS = (
    Product("a", 3.0, (extent(0, g0=1),)),
    Product("b", 2.0, (extent(0, g0=1), extent(0, g1=2))),
    Product("c", 1.0, (extent(2, g0=1, g1=1), extent(0, g2=3))),
    Product("d", 1.5, (extent(0, g2=1), extent(1, g2=1))),
    Product("e", 7.0, ()),
)


def cost(widths: tuple[int, ...]) -> float:
    kept = {g: np.arange(n) < w for g, (n, w) in enumerate(zip(SIZES, widths, strict=True))}
    return total(PRODUCTS, kept)


def random_menus(seed: int) -> list[Menu]:
    rng = np.random.default_rng(seed)
    menus = []
    for n in SIZES:
        widths = np.arange(1, n + 1)
        menus.append(Menu(tuple(widths.tolist()), tuple(np.sort(rng.random(n))[::-1].tolist())))
    return menus


def every(menus: list[Menu]) -> list[tuple[tuple[int, ...], float]]:
    return [
        (tuple(m.widths[i] for m, i in zip(menus, at, strict=True)),
         sum(m.damage[i] for m, i in zip(menus, at, strict=True)))
        for at in product(*(range(len(m.widths)) for m in menus))
    ]  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.1, 1.0))
def test_widths_are_the_best_within_the_budget(seed: int, share: float) -> None:
    menus = random_menus(seed)
    limit = cost((1, 1, 1)) + share * (cost((6, 4, 5)) - cost((1, 1, 1)))
    found = choose_widths(menus, SIZES, [Budget("macs", limit, PRODUCTS)])
    best = min(d for w, d in every(menus) if cost(w) <= limit * (1 + 1e-9))
    assert found.optimal
    assert cost(found.widths) <= limit * (1 + 1e-6)
    assert found.damage == pytest.approx(best, rel=2e-4)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_two_budgets_tables_and_equal_widths(seed: int) -> None:
    menus = random_menus(seed)
    rng = np.random.default_rng(seed)
    table = Latency((0, 1), rng.random((6, 4)))
    alone = Latency((2,), rng.random(5))

    def seconds(w: tuple[int, ...]) -> float:
        return float(table.seconds[w[0] - 1, w[1] - 1] + alone.seconds[w[2] - 1])

    budgets = [Budget("macs", 200.0, PRODUCTS), Budget("latency", 0.9, latencies=(table, alone))]
    fitting = [
        d for w, d in every(menus) if cost(w) <= 200.0 and seconds(w) <= 0.9 and w[1] == w[2]
    ]
    if not fitting:
        with pytest.raises(ShrinkingError, match="no widths meet"):
            choose_widths(menus, SIZES, budgets, equal=[(1, 2)])
        return
    found = choose_widths(menus, SIZES, budgets, equal=[(1, 2)])
    assert found.widths[1] == found.widths[2]
    assert found.damage == pytest.approx(min(fitting), rel=2e-4)


def test_a_solver_of_pyomo_gives_the_same() -> None:
    menus = random_menus(1)
    budget = Budget("macs", 150.0, PRODUCTS)
    ours = choose_widths(menus, SIZES, [budget])
    theirs = choose_widths(menus, SIZES, [budget], solver="appsi_highs")
    assert theirs.damage == pytest.approx(ours.damage, rel=1e-6)
    with pytest.raises(ShrinkingError, match="Pyomo has no solver 'nosuch'"):
        choose_widths(menus, SIZES, [budget], solver="nosuch")


def test_a_budget_out_of_reach_says_how_far_it_goes() -> None:
    menus = random_menus(1)
    with pytest.raises(ShrinkingError, match=r"macs can fall to 29, 20 was asked for"):
        choose_widths(menus, SIZES, [Budget("macs", 20.0, PRODUCTS)])


def test_menus_are_checked() -> None:
    for widths, damage in (((2, 1), (0.0, 0.0)), ((1,), ()), ((1,), (float("nan"),))):
        with pytest.raises(ShrinkingError):
            Menu(widths, damage)
