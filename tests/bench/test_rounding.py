"""What counts as the same energy, and as a proof: by the scale of the problem, whatever it is."""

from __future__ import annotations

import numpy as np
import pytest

from optiprune.bench.errors import BenchError
from optiprune.bench.instances import BestKnown, Instance
from optiprune.bench.instances.instance import hex_of, rounding
from optiprune.problems import MIQP, QUBO, CardinalityQP, FactoredMatrix


def test_all_terms_count_and_the_offset_among_them() -> None:
    problem = QUBO([[1.0, -2.0], [-2.0, 3.0]], [-4.0, 5.0], offset=-100.0)
    assert rounding(problem) == pytest.approx(1e-12 * (1 + 2 + 2 + 3 + 4 + 5 + 100))


def test_of_a_factored_matrix_the_terms_of_its_own_sums_count() -> None:
    # (1 - 1)**2 is 0 with both variables, though each of its terms is 1
    problem = CardinalityQP(FactoredMatrix([[1.0, -1.0]], [0.0, 3.0]), k=1)
    assert rounding(problem) == pytest.approx(1e-12 * (4 + 3))


def test_of_weights_those_that_each_would_take_alone() -> None:
    # w = (2, 1): the second is bounded; 1/2 w'|H|w = 1/2 (4 + 2 * 0.5 * 2 + 1), |b|'w = 4 + 3
    problem = MIQP([[1.0, -0.5], [-0.5, 1.0]], [2.0, -3.0], k=1, M=[np.inf, 1.0], offset=-1.0)
    assert rounding(problem) == pytest.approx(1e-12 * (3.5 + 7 + 1))


@pytest.mark.parametrize(("b", "M", "terms"), [(0, np.inf, 0), (5, 2, 10), (5, np.inf, 0)])
def test_a_weight_without_curvature_has_a_scale_too(b: float, M: float, terms: float) -> None:
    problem = MIQP(np.zeros((2, 2)), [0.0, b], k=1, M=M)
    assert rounding(problem) == pytest.approx(1e-12 * terms)


def test_other_types_are_refused() -> None:
    with pytest.raises(BenchError, match="object"):
        rounding(object())  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_a_proof_is_one_at_every_scale(scale: float) -> None:
    size = 100 * scale * 1e-12
    assert not BestKnown(4.12 * scale, "s", bound=3.09 * scale, rounding=size).proven
    assert not BestKnown(4.12 * scale, "s", bound=3.09 * scale).proven
    assert BestKnown(4.12 * scale, "s", bound=(4.12 - 1e-7) * scale, rounding=size).proven


def test_a_proof_of_a_difference_of_large_terms() -> None:
    # an optimum of about 0, of terms that add up to 1000
    assert BestKnown(1e-14, "s", bound=-1e-8, rounding=1e-9).proven
    assert not BestKnown(1e-14, "s", bound=-1e-5, rounding=1e-9).proven


def test_a_bound_above_the_energy_is_no_proof() -> None:
    assert not BestKnown(-12.0, "s", bound=-10.0).proven


def test_a_best_known_answer_is_held_against_a_small_problem() -> None:
    problem = QUBO(1e-9 * np.diag([-1.0, 2.0]))
    claim = BestKnown(-3e-9, "s", hex_of([1, 0]))
    how = {"family": "f", "recipe": "r"}
    with pytest.raises(BenchError, match="claims energy"):
        Instance.of("tiny", problem, lambda: problem, best=claim, **how)
    right = BestKnown(-1e-9, "s", hex_of([1, 0]))
    best = Instance.of("tiny", problem, lambda: problem, best=right, **how).best
    assert best is not None
    assert best.rounding == rounding(problem)
