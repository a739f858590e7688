"""The share below a threshold is the quantile that it was made for, on normal weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from optiprune.training.rules.normal_threshold import lower_threshold, magnitude_threshold


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 0.99), st.floats(-3.0, 3.0), st.floats(1e-4, 1e3))
def test_share_of_normal_weights(seed, rate, mean, scale) -> None:
    w = (np.random.default_rng(seed).standard_normal(40_000) + mean) * scale
    share = np.mean(np.abs(w) < magnitude_threshold(w, rate))
    assert abs(share - rate) < 0.015
    assert abs(np.mean(w < lower_threshold(w, rate)) - rate) < 0.015


@given(st.floats(0.01, 0.99), st.floats(1e-6, 1e6))
def test_without_a_mean_it_is_the_normal_quantile(rate, scale) -> None:
    w = np.array([-1.0, 1.0]) * scale  # mean 0, deviation `scale`
    want = scale * ndtri((1 + rate) / 2)
    assert magnitude_threshold(w, rate) == pytest.approx(want, rel=1e-9)


def test_ordinary_inputs_that_are_odd() -> None:
    for values in (np.zeros(5), np.full(5, 0.3), np.array([]), np.array([2.0])):
        assert magnitude_threshold(values, 0.5) == 0.0
        assert lower_threshold(values, 0.5) == -np.inf
    w = np.random.default_rng(0).standard_normal(100)
    assert magnitude_threshold(w, 0.0) == 0.0
    assert lower_threshold(w, 0.0) == -np.inf
    # weights far out of the bulk stay whatever the share
    heavy = np.concatenate([w, [50.0]])
    assert magnitude_threshold(heavy, 0.99) < 50.0
    for rate in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="must be in"):
            magnitude_threshold(w, rate)
