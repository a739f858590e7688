"""Union-find over units."""

from __future__ import annotations

import numpy as np

from optiprune.structure.units import FIXED, Barrier, Units

WHY = Barrier("aten.roll.default", "it is rolled", "net.a", "net.py:3")


def test_merged_units_are_one_class_and_others_are_not() -> None:
    units = Units()
    a, b, c = units.new((3,)), units.new((3,)), units.new((3,))
    units.merge(a, b)
    assert units.roots(a).tolist() == units.roots(b).tolist()
    assert not set(units.roots(c)) & set(units.roots(a))
    units.merge(b[::-1], c)
    assert units.find(int(a[0])) == units.find(int(c[2]))


def test_merging_broadcasts_and_along_an_axis_leaves_the_others() -> None:
    units = Units()
    ids = units.new((2, 3))
    left = units.merge_along(ids, 1)
    assert left.shape == (2,)
    roots = units.roots(ids)
    assert (roots == roots[:, :1]).all()
    assert roots[0, 0] != roots[1, 0]


def test_a_barrier_holds_all_that_is_merged_before_and_after_and_the_first_is_told() -> None:
    units = Units()
    a, b, c = (int(units.new((1,))[0]) for _ in range(3))
    units.merge(np.array([a]), np.array([b]))
    units.hold(np.array([b]), WHY)
    units.hold(np.array([a]), Barrier("later", "another reason"))
    assert units.barrier(a) == WHY
    assert units.barrier(c) is None
    units.merge(np.array([c]), np.array([a]))
    assert units.barrier(c) == WHY
    assert str(WHY) == "aten.roll.default: it is rolled (net.a, net.py:3)"


def test_what_meets_the_fixed_unit_stays() -> None:
    units = Units()
    a = units.new((1,))
    units.merge(a, np.array([FIXED]))
    assert units.barrier(int(a[0])) is not None


def test_an_empty_array_of_units() -> None:
    units = Units()
    assert units.new((0,)).shape == (0,)
    assert units.roots(units.new((0, 2))).shape == (0, 2)
    units.merge(units.new((0,)), units.new((0,)))
