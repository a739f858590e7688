"""Trajectories that are believed, and what of them is kept."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optiprune.solvers.trajectory import thinned_trajectory, verified_trajectory

FALLING = st.lists(
    st.tuples(st.floats(1e-6, 10.0), st.floats(-1e3, 1e3)), max_size=60, unique_by=lambda p: p[0]
).map(
    lambda p: list(
        zip(sorted(t for t, _ in p), sorted((e for _, e in p), reverse=True), strict=True)
    )
)


@given(FALLING, st.floats(-1e3, 1e3))
def test_it_ends_in_the_energy_that_was_recomputed(told, energy) -> None:
    found = verified_trajectory(told, energy, 10.0)
    assert found[-1][1] == energy
    assert all(e > energy for _, e in found[:-1])
    assert [t for t, _ in found] == sorted(t for t, _ in found)
    assert set(found[:-1]) <= set(told)


@pytest.mark.parametrize(
    "told",
    [[(2.0, 3.0), (1.0, 2.0)], [(-1.0, 3.0)], [(math.nan, 3.0)], [(0.0, 3.0)], [(1.0, math.inf)]],
)
def test_times_of_another_clock_and_infinities_are_not_believed(told) -> None:
    assert verified_trajectory(told, 1.0, 5.0) == ((5.0, 1.0),)


def test_an_answer_that_was_told_last_has_its_time() -> None:
    told = [(1.0, 3.0), (2.0, 1.0 + 1e-6)]
    assert verified_trajectory(told, 1.0, 5.0) == ((1.0, 3.0), (2.0, 1.0))
    assert verified_trajectory([(1.0, 3.0), (2.0, 1.1)], 1.0, 5.0)[-1] == (5.0, 1.0)


def test_something_else_than_pairs_is_refused() -> None:
    for told in ([1.0], [("a", "b")], 3):
        with pytest.raises((TypeError, ValueError)):
            verified_trajectory(told, 1.0, 5.0)  # type: ignore[arg-type]


@given(FALLING, st.integers(2, 40))
def test_thinned_ones_keep_their_ends(points, most) -> None:
    kept = thinned_trajectory(points, most)
    assert len(kept) == min(len(points), most)
    if points:
        assert kept[0] == (round(points[0][0], 7), points[0][1])
        assert kept[-1] == (round(points[-1][0], 7), points[-1][1])
