"""What balances ask of the units of one group, and of the widths of several."""

from __future__ import annotations

import numpy as np

from optiprune.shrinking.ties import find_ties
from optiprune.structure import Balance, Barrier, Group, Structure

WHY = Barrier("test", "parts are cut from it")


def structure(sizes: list[int], *balances: list[list[tuple[int, int]]]) -> Structure:
    groups = tuple(Group(f"g{i}", "channels", n, ()) for i, n in enumerate(sizes))
    parts = tuple(Balance(tuple(tuple(p) for p in b), WHY) for b in balances)
    return Structure(groups, parts, (), (), (), (), (), 1)


def units(group: int, *which: int) -> list[tuple[int, int]]:
    return [(group, u) for u in which]


def test_halves_of_a_group() -> None:
    ties = find_ties(structure([6], [units(0, 0, 2, 4), units(0, 1, 3, 5)]))
    assert [p.tolist() for p in ties.parts(0)] == [[0, 2, 4], [1, 3, 5]]
    assert ties.step(0) == 2
    assert not ties.whole
    assert not ties.equal


def test_halves_and_quarters_make_quarters() -> None:
    halves = [units(0, 0, 1, 2, 3), units(0, 4, 5, 6, 7)]
    quarters = [units(0, 0, 1), units(0, 2, 3), units(0, 4, 5), units(0, 6, 7)]
    assert find_ties(structure([8], halves, quarters)).step(0) == 4


def test_parts_that_cross_unevenly_hold_the_group() -> None:
    halves = [units(0, 0, 1, 2), units(0, 3, 4, 5)]
    thirds = [units(0, 0, 1), units(0, 2, 3), units(0, 4, 5)]
    ties = find_ties(structure([6, 3], halves, thirds))
    assert ties.whole == {0}


def test_parts_of_two_groups_each() -> None:
    mixed = [units(0, 0, 1) + units(1, 0), units(0, 2, 3) + units(1, 1)]
    ties = find_ties(structure([4, 2], mixed))
    assert ties.step(0) == 2
    assert ties.step(1) == 2


def test_whole_groups_have_one_width() -> None:
    ties = find_ties(structure([3, 3, 5], [units(0, 0, 1, 2), units(1, 0, 1, 2)]))
    assert ties.equal == ((0, 1),)
    assert ties.step(0) == ties.step(2) == 1


def test_what_is_neither_stays_whole_and_so_does_what_is_tied_to_it() -> None:
    uneven = [[*units(0, 0, 1), (-1, -1)], units(1, 0, 1, 2)]
    tied = [units(1, 0, 1, 2), units(2, 0, 1, 2)]
    ties = find_ties(structure([2, 3, 3], uneven, tied))
    assert ties.whole == {0, 1, 2}
    assert not ties.equal


def test_a_unit_in_two_parts_or_twice_in_one() -> None:
    assert find_ties(structure([3], [units(0, 0, 1), units(0, 1, 2)])).whole == {0}
    twice = [units(0, 0, 0), units(0, 1, 1)]
    assert np.array_equal(find_ties(structure([2], twice)).atoms[0], [0, 1])
