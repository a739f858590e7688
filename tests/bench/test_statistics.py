"""Gaps, hits, times to target, profiles and curves, with numbers derived by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from optiprune.bench.instances import BestKnown
from optiprune.bench.report import make_report
from optiprune.bench.statistics import (
    gap_curves,
    median_time_to_target,
    performance_profile,
    runs_of,
    summarise,
    time_to_target,
)
from optiprune.bench.statistics.runs import relative_gap

from .conftest import record

BEST = {"aa": BestKnown(-10.0, "s"), "bb": BestKnown(-10.0, "s")}


def array(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def test_a_gap_is_relative_to_the_best_and_never_negative() -> None:
    assert relative_gap(-9.0, -10.0, 1e-9) == pytest.approx(0.1)
    assert relative_gap(11.0, 10.0, 1e-9) == pytest.approx(0.1)
    assert relative_gap(0.5, 0.0, 1e-9) == 0.5
    assert relative_gap(-10.0 - 1e-12, -10.0, 0.0) == 0.0


def test_where_the_optimum_is_zero_but_for_rounding_gaps_and_hits_are_right() -> None:
    # two optima of a max-cut that was shifted to 0, and an answer that is none
    energies = (0.0, -1.4e-14, 0.0, 2.0)
    records = [
        record(seed=i, energy=e, trajectory=[[0.1, e]], rounding=1e-10)
        for i, e in enumerate(energies)
    ]
    (row,) = make_report(records).rows
    assert (row.hit_rate, row.mean_gap, row.worst_gap) == (0.75, 0.5, 2.0)
    # at a target gap as well
    (loose,) = make_report(records, target_gap=0.01).rows
    assert loose.hit_rate == 0.75


def test_without_the_rounding_a_share_of_the_energy_stands_for_it() -> None:
    near = -10.0 + 5e-9
    (run,) = runs_of([record(energy=near, trajectory=[[0.1, near]])], BEST)
    assert (run.gap, run.hit_s) == (0.0, 0.1)
    known = {"aa": BestKnown(-10.0, "s", rounding=1e-12)}
    (run,) = runs_of([record(energy=near, trajectory=[[0.1, near]])], known)
    assert run.gap == pytest.approx(5e-10)
    assert not run.hit


def test_what_came_after_the_budget_does_not_count() -> None:
    late = record(cpu_s=39.0, trajectory=[[0.1, -5.0], [1.19, -6.0], [39.0, -10.0]])
    only = record(seed=1, cpu_s=39.0, trajectory=[[39.0, -10.0]])
    first, second = runs_of([late, only], BEST)
    assert (first.gap, first.hit, len(first.curve)) == (0.4, False, 2)
    assert (second.gap, second.hit, second.curve) == (math.inf, False, ())
    (row,) = summarise([first, second], BEST)
    assert (row.hit_rate, row.answered, row.overran) == (0.0, 0.5, 2)


def test_a_run_that_crashes_is_not_the_faster_for_it() -> None:
    hits = [record(seed=i) for i in range(5)]
    misses = [record(seed=5 + i, energy=-5.0, trajectory=[[0.1, -5.0]]) for i in range(5)]
    nothing: dict[str, Any] = {"status": "error", "energy": None, "trajectory": []}
    raising = [record(seed=5 + i, cpu_s=0.02, **nothing) for i in range(5)]
    lost = [{k: v for k, v in r.items() if k != "cpu_s"} for r in raising]
    steady = median_time_to_target(runs_of([*hits, *misses], BEST))
    for failed in (raising, lost):
        runs = runs_of([*hits, *failed], BEST)
        assert median_time_to_target(runs) == steady
        assert {r.cpu_s for r in runs} == {1.0}
    # one that was ended after ten budgets has used more than its own
    (hung,) = runs_of([record(cpu_s=10.0, **nothing)], BEST)
    assert hung.cpu_s == 10.0


def test_measurements_by_other_rules_have_rows_of_their_own() -> None:
    modes = ("fill", "once", "fill+target")
    rows = make_report([record(mode=m) for m in modes]).rows
    assert [(r.mode, r.runs) for r in rows] == [("fill", 1), ("fill+target", 1), ("once", 1)]


def test_two_solvers_under_one_label_are_not_averaged() -> None:
    first = record(solver="m", solver_key="annealing")
    second = record(solver="m", solver_key="greedy", energy=-5.0, trajectory=[[0.1, -5.0]])
    rows = make_report([first, second]).rows
    assert {r.solver: r.hit_rate for r in rows} == {"m": 1.0, "m (2)": 0.0}


def test_one_solver_under_two_labels_has_two_rows() -> None:
    rows = make_report([record(solver=s, solver_key="greedy") for s in ("greedy", "x")]).rows
    assert {r.solver for r in rows} == {"greedy", "x"}


def test_a_row_tells_its_most_frequent_error_and_its_fewest_seeds() -> None:
    nothing: dict[str, Any] = {"status": "error", "energy": None, "trajectory": []}
    failed = [record(seed=i, message=m, **nothing) for i, m in enumerate(["one", "two", "two"])]
    (row,) = make_report([*failed, record(seed=3, message="fine"), record(sha256="bb")]).rows
    assert (row.message, row.errors, row.seeds) == ("two", 3, 1)


def test_a_hit_is_the_first_incumbent_at_the_target() -> None:
    (run,) = runs_of([record()], BEST)
    assert (run.gap, run.hit_s, run.hit) == (0.0, 0.5, True)
    assert run.curve == ((0.1, 0.5), (0.5, 0.0))
    (loose,) = runs_of([record()], BEST, target_gap=0.5)
    assert loose.hit_s == 0.1
    (missed,) = runs_of([record(energy=-5.0, trajectory=[[0.1, -5.0]])], BEST)
    assert missed.gap == 0.5
    assert missed.hit_s == math.inf


def test_skipped_solves_are_no_runs_and_a_repeated_one_counts_once() -> None:
    again = record(energy=-9.0, trajectory=[[0.2, -9.0]])
    runs = runs_of([record(), record(seed=1, status="skipped"), again], BEST)
    assert [r.gap for r in runs] == [pytest.approx(0.1)]


def test_an_error_is_a_run_without_an_answer() -> None:
    runs = runs_of([{**record(status="error", energy=None), "trajectory": []}], BEST)
    assert runs[0].failed
    assert runs[0].gap == math.inf


def attempts(p: float) -> float:
    return math.log(0.01) / math.log(1 - p)


def test_time_to_target_of_few_sure_hits_allows_for_doubt() -> None:
    # three of four by 3 s: p = (3 + 1) / (4 + 2)
    expected = 3 * attempts(4 / 6)
    assert time_to_target(array(1, 2, 3, 50), array(60, 60, 60, 60)) == pytest.approx(expected)


def test_many_sure_hits_need_one_attempt() -> None:
    assert time_to_target(np.full(200, 2.0), np.full(200, 9.0)) == 2.0


def test_time_to_target_repeats_what_succeeds_half_of_the_time() -> None:
    # p = (1 + 1) / (2 + 2)
    expected = 2 * attempts(0.5)
    assert time_to_target(array(2, np.inf), array(10, 10)) == pytest.approx(expected)


def test_runs_that_end_early_without_the_target_cost_their_own_time() -> None:
    # attempts of 1 s (hit) and 0.2 s (gave up): 0.6 s on average
    expected = 0.6 * attempts(0.5)
    assert time_to_target(array(1, np.inf), array(1, 0.2)) == pytest.approx(expected)


def test_time_to_target_without_a_hit_or_without_runs() -> None:
    assert time_to_target(array(np.inf), array(1)) == math.inf
    with pytest.raises(ValueError, match="runs"):
        time_to_target(array(), array())


def test_the_median_over_instances_is_never_too_good() -> None:
    runs = runs_of(
        [
            record(trajectory=[[0.5, -10.0]]),
            record(sha256="bb", trajectory=[[0.1, -5.0]], energy=-5.0),
        ],
        BEST,
    )
    assert median_time_to_target(runs).value == math.inf


def test_an_interval_holds_its_value_and_covers_the_truth(rng: np.random.Generator) -> None:
    # exponential times of mean 1 have no memory: TTT99 is -ln(0.01) = 4.6 s at every cut-off
    inside = 0
    for _ in range(20):
        times = rng.exponential(size=60)
        records = [
            record(seed=i, cpu_s=10.0, trajectory=[[float(t), -10.0]]) for i, t in enumerate(times)
        ]
        e = median_time_to_target(runs_of(records, BEST))
        assert e.low <= e.value <= e.high
        inside += e.low <= -math.log(0.01) <= e.high
    assert inside >= 16


def test_estimates_are_the_same_each_time() -> None:
    runs = runs_of([record(seed=i, trajectory=[[0.1 * (i + 1), -10.0]]) for i in range(9)], BEST)
    assert median_time_to_target(runs) == median_time_to_target(runs)


def profile_runs() -> list:
    fast = record(solver="fast", trajectory=[[0.1, -10.0]])
    slow = record(solver="slow", trajectory=[[0.4, -10.0]])
    only = record(solver="slow", sha256="bb", trajectory=[[0.2, -10.0]])
    never = record(solver="fast", sha256="bb", energy=-5.0, trajectory=[[0.1, -5.0]])
    return runs_of([fast, slow, only, never], BEST)


def test_profile_shares_by_hand() -> None:
    profile = performance_profile(profile_runs())
    x, y = profile["fast"]
    assert x.tolist() == [1.0, 1.0]
    assert y.tolist() == [0.0, 0.5]  # one of the two instances, at ratio 1; never the other
    x, y = profile["slow"]
    assert x.tolist() == pytest.approx([1.0, 1.0, 4.0])
    assert y.tolist() == [0.0, 0.5, 1.0]


def test_a_profile_counts_the_instances_that_a_solver_was_run_on() -> None:
    both = [record(solver="all"), record(solver="all", sha256="bb")]
    profile = performance_profile(runs_of([*both, record(solver="small")], BEST))
    assert profile["small"][1].tolist() == [0.0, 1.0]
    assert profile["all"][1].tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("other", [{"budget": 2.0}, {"mode": "once"}])
def test_profiles_and_curves_compare_runs_of_one_budget(other: dict[str, Any]) -> None:
    runs = runs_of([record(), record(**other)], BEST)
    with pytest.raises(ValueError, match="one budget"):
        performance_profile(runs)
    with pytest.raises(ValueError, match="one budget"):
        gap_curves(runs)


def test_curves_follow_the_incumbents() -> None:
    curve = gap_curves(runs_of([record()], BEST))["s"]
    assert curve.seconds[0] == pytest.approx(0.1)
    assert curve.seconds[-1] == pytest.approx(1.0)
    assert set(curve.median.tolist()) == {0.5, 0.0}
    assert curve.median[-1] == 0.0


def test_curves_begin_at_infinity_without_a_nan() -> None:
    curve = gap_curves(runs_of([record(seed=0), record(seed=1, trajectory=[[0.9, -10.0]])], BEST))
    assert not np.isnan(curve["s"].median).any()
    assert math.isinf(curve["s"].high[0])


def test_summary_row_by_hand() -> None:
    records = [
        record(),
        record(seed=1, energy=-9.0, trajectory=[[0.3, -9.0]], cpu_s=1.5),
        {**record(seed=2, status="error", energy=None, cpu_s=0.0), "trajectory": []},
        record(seed=3, status="optimal", bound=-10.0, trajectory=[[0.2, -10.0]]),
    ]
    best = {"aa": BestKnown(-10.0, "s", bound=-10.0, proven_by="s")}
    (row,) = summarise(runs_of(records, best), best)
    assert (row.runs, row.errors, row.answered) == (4, 1, 0.75)
    assert row.mean_gap == pytest.approx(0.1 / 3)
    assert row.worst_gap == pytest.approx(0.1)
    assert row.hit_rate == 0.5
    assert (row.solved, row.instances, row.proven, row.closed, row.overran) == (1, 1, 1, 1, 1)


def test_rows_come_by_size_and_speed() -> None:
    rows = summarise(profile_runs(), BEST)
    assert [r.solver for r in rows] == ["slow", "fast"]  # fast does not solve the other
