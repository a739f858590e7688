"""Medians and contests with numbers that are known."""

from __future__ import annotations

import math
from typing import Any

import pytest

from benchmarks.quality.summary import (
    LAYER_ERROR,
    LOSS,
    MEMORY,
    WALL,
    contests,
    entries,
    in_order,
    metric_of,
)


def good(record: Any, method: str, values: list[float], **fields: Any) -> list[dict[str, Any]]:
    """One seed after the other; the loss is 1 minus the accuracy."""
    ours = {"source": "optiprune"} if method.startswith("optiprune") else {}
    return [
        record(
            method=method,
            seed=s,
            metrics={"accuracy": v, "loss": 1 - v, "kl": 0.1},
            **{**ours, **fields},
        )
        for s, v in enumerate(values)
    ]


def test_medians_over_seeds(record: Any) -> None:
    (entry,) = entries(good(record, "wanda", [0.9, 0.5, 0.8]))
    metric = metric_of([entry])
    assert entry.median(metric) == 0.8
    assert entry.median(metric, [0, 1]) == pytest.approx(0.7)
    assert entry.median(LOSS) == pytest.approx(0.2)
    assert entry.median(MEMORY) == 100.0
    assert entry.median(WALL) == 2.0
    assert entry.median(LAYER_ERROR) == 0.25
    assert (metric.label, metric.higher_is_better) == ("accuracy (%)", True)


def test_failed_seeds_are_apart_and_nan_is_never_a_median(record: Any) -> None:
    records = good(record, "wanda", [0.9, 0.7])
    records += [record(seed=2, status="crashed", message="x")]
    (entry,) = entries(records)
    assert sorted(entry.good) == [0, 1]
    assert sorted(entry.bad) == [2]
    (broken,) = entries(good(record, "wanda", [0.9, math.nan, 0.8]))
    assert math.isnan(broken.median(metric_of([broken])))


def test_records_of_two_settings_are_not_mixed(record: Any) -> None:
    with pytest.raises(ValueError, match="in two ways"):
        entries([record(seed=0), record(seed=1, samples=200)])


def test_densities_fall_and_patterns_come_last() -> None:
    assert in_order(["2:4", "0.05", "4:8", "0.5", "0.07"]) == ["0.5", "0.07", "0.05", "2:4", "4:8"]


def test_our_default_meets_the_best_of_its_kind_alone(record: Any) -> None:
    found = contests(
        entries(
            good(record, "optiprune-mask", [0.7, 0.8, 0.9])
            + good(record, "wanda", [0.6, 0.75, 0.7])
            + good(record, "ria", [0.6, 0.85, 0.9])
            + good(record, "alps", [0.99] * 3, kind="weights")
            + good(record, "optiprune-global-mask", [0.1] * 3)
        )
    )
    assert [(c.kind, c.quantity.name, c.baseline, c.verdict) for c in found] == [
        ("mask", "metric", "ria", "lost"),
        ("mask", "loss", "ria", "lost"),
    ]
    assert (found[0].ours, found[0].best, found[0].seeds) == (0.8, 0.85, (0, 1, 2))


def test_only_seeds_in_common_are_compared(record: Any) -> None:
    # the rival has only the seed on which we are good too
    found = contests(
        entries(good(record, "optiprune-mask", [0.9, 0.1, 0.2]) + good(record, "wanda", [0.8]))
    )
    assert (found[0].ours, found[0].best, found[0].verdict, found[0].seeds) == (
        0.9,
        0.8,
        "won",
        (0,),
    )


def test_equal_is_tied(record: Any) -> None:
    found = contests(entries(good(record, "optiprune-mask", [0.9]) + good(record, "wanda", [0.9])))
    assert {c.verdict for c in found} == {"tied"}


def test_a_default_that_failed_has_lost_and_says_why(record: Any) -> None:
    bad = record(method="optiprune-mask", source="optiprune", status="crashed", message="no memory")
    found = contests(entries([bad, *good(record, "wanda", [0.8])]))
    assert {(c.verdict, c.reason) for c in found} == {("lost", "no memory")}


def test_lower_perplexity_wins(record: Any) -> None:
    def lm(method: str, value: float, **fields: Any) -> dict[str, Any]:
        metrics = {"perplexity": value, "loss": math.log(value), "kl": 0.0}
        return record(
            method=method,
            metric="perplexity",
            metrics=metrics,
            higher_is_better=False,
            percent=False,
            **fields,
        )

    found = contests(
        entries([lm("optiprune-mask", 20.0, source="optiprune"), lm("wanda", 30.0), lm("b", 25.0)])
    )
    assert [(c.baseline, c.verdict) for c in found] == [("b", "won"), ("b", "won")]
