"""How many samples a step looks at."""

import pytest

from optiprune.config import CurvatureOptions
from optiprune.engine.sample_plan import planned_samples

OPTIONS = CurvatureOptions(samples=2000, gradient_samples=8000, work=3e10)


@pytest.mark.parametrize(
    ("samples", "multiply_adds", "fisher", "gradient"),
    [
        (20_000, 1e6, 2000, 8000),  # cheap: as given
        (3600, 1e6, 2000, 3600),  # no more than there are
        (3600, 4e7, 268, 482),  # in proportion
        (3600, 1e12, 64, 64),  # but not too few
        (10, 1e12, 10, 10),
        (20_000, 0.0, 2000, 8000),
    ],
)
def test_numbers_shrink_to_the_work_that_is_allowed(samples, multiply_adds, fisher, gradient):
    planned = planned_samples(OPTIONS, samples, multiply_adds)
    assert (planned.samples, planned.gradient_samples) == (fisher, gradient)


def test_without_a_number_for_the_gradient_it_takes_those_of_the_curvature():
    options = OPTIONS.model_copy(update={"gradient_samples": None})
    assert planned_samples(options, 5000, 1e6).gradient_samples == 2000
