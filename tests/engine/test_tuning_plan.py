"""What the tuning does where the config leaves it to the model."""

from __future__ import annotations

import pytest

from optiprune.config import TuneOptions
from optiprune.engine.tuning_plan import planned


@pytest.mark.parametrize(
    ("multiply_adds", "epochs"), [(1.0, 20), (2.5e11, 16), (1.7e12, 2), (1e20, 2)]
)
def test_passes_follow_from_the_work(multiply_adds, epochs):
    assert planned(TuneOptions(), 3, 1000, multiply_adds).epochs == epochs
    more = planned(TuneOptions(work=4e13), 3, 1000, multiply_adds).epochs
    assert more == min(20, max(2, int(4e13 / multiply_adds)))


@pytest.mark.parametrize(("layers", "rate"), [(0, 0.01), (1, 0.01), (10, 0.01), (200, 5e-4)])
def test_deep_models_take_smaller_steps(layers, rate):
    assert planned(TuneOptions(), layers, 1000, 1.0).learning_rate == pytest.approx(rate)


@pytest.mark.parametrize(("samples", "batch"), [(1, 1), (7, 1), (32, 4), (256, 32), (10**5, 32)])
def test_a_pass_has_eight_steps_at_least(samples, batch):
    assert planned(TuneOptions(), 3, samples, 1.0).batch == batch


def test_numbers_stay():
    options = TuneOptions(epochs=0, learning_rate=0.5, batch=7)
    assert planned(options, 100, 3, 1e30) == options
