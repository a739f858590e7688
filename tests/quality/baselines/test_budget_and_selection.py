"""Budgets: what they refuse, and masks that keep exactly as many weights as they say."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.quality.baselines import BaselineError, LayerBudget
from benchmarks.quality.baselines.selection import keep_largest, select


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"density": 1.1}, r"density must be in 0 .. 1, got 1.1"),
        ({"density": float("nan")}, "density must be"),
        ({"density": 0.5, "scope": "model"}, "scope must be 'row' or 'layer', got 'model'"),
        ({"density": 0.5, "pattern": (3, 2)}, "N of M with 0 <= N <= M, got 3:2"),
        ({"density": 0.5, "pattern": (0, 0)}, "got 0:0"),
        ({"density": 0.4, "pattern": (2, 4)}, "density 0.4 is not that of the pattern 2:4"),
    ],
)
def test_bad_budgets_are_refused(arguments, message):
    with pytest.raises(BaselineError, match=message):
        LayerBudget(**arguments)


def test_pattern_must_divide_the_row():
    LayerBudget.of_pattern(2, 4).require_fits(8)
    with pytest.raises(BaselineError, match="layer 'c' has 9 weights in a row, which 4 does not"):
        LayerBudget.of_pattern(2, 4).require_fits(9, "layer 'c'")


def test_kept_counts():
    assert LayerBudget(0.1).kept(10, 512) == 10 * 51
    assert LayerBudget(0.1, scope="layer").kept(10, 512) == 512
    assert LayerBudget.of_pattern(4, 8).kept(3, 16) == 24


def test_of_equal_scores_the_first_are_kept():
    assert keep_largest(torch.tensor([[1.0, 2.0, 1.0, 1.0]]), 2).tolist() == [
        [True, True, False, False]
    ]
    assert select(torch.zeros(2, 2), LayerBudget(0.75, scope="layer")).tolist() == [
        [True, True],
        [True, False],
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=7, max_size=7), max_size=5),
    st.integers(0, 7),
)
def test_keeps_what_a_stable_sort_puts_first(rows, k):
    scores = torch.tensor(rows, dtype=torch.float64).reshape(-1, 7)
    mask = keep_largest(scores, k)
    for row, kept in zip(rows, mask.tolist(), strict=True):
        first = sorted(range(7), key=lambda j: -row[j])[:k]
        assert [j for j in range(7) if kept[j]] == sorted(first)
