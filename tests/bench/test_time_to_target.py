"""The ratio of times to target in `benchmarks.time_to_target`: never in our favour by mistake."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from optiprune.bench.statistics import Run

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from benchmarks.time_to_target import ratio  # noqa: E402 (found by the lines above)

INF = float("inf")


def runs(times: dict[str, list[float]], budget: float = 1.0) -> list[Run]:
    return [
        Run(
            instance=name,
            sha256=name,
            family="f",
            n=8,
            solver="s",
            solver_key="s",
            mode="fill",
            seed=seed,
            budget=budget,
            status="feasible",
            gap=0.0,
            hit_s=t,
            cpu_s=budget,
            curve=((t, 0.0),),
            proven=False,
        )
        for name, row in times.items()
        for seed, t in enumerate(row)
    ]


def test_where_all_hit_it_is_the_ratio_of_times() -> None:
    ours = runs({"a": [0.001] * 4, "b": [0.002] * 4, "c": [0.001] * 4})
    theirs = runs({"a": [0.1] * 4, "b": [0.1] * 4, "c": [0.3] * 4})
    q = ratio(ours, theirs)
    assert q.value == pytest.approx(100.0)  # of 100, 50 and 300
    assert q.least == pytest.approx(50.0)
    assert (q.censored, q.never, q.instances) == (False, 0, 3)
    assert q.low <= q.value <= q.high


def test_where_the_external_one_never_hits_its_whole_time_stands() -> None:
    # four runs that hit at once: p = 5/6, TTT99 = 0.01 ln 0.01 / ln (1/6) = 0.0257 s
    ours = runs({"a": [0.01] * 4})
    q = ratio(ours, runs({"a": [INF] * 4}))
    assert q.value == pytest.approx(4 / 0.0257017, rel=1e-4)
    assert (q.censored, q.never) == (True, 1)


def test_where_ours_never_hits_the_ratio_is_nothing() -> None:
    q = ratio(runs({"a": [INF] * 4}), runs({"a": [0.1] * 4}))
    assert (q.value, q.low, q.high) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="instance"):
        ratio(runs({"a": [1.0]}), runs({"b": [1.0]}))
