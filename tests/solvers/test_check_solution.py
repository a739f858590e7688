"""check_solution believes nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from optiprune.problems import MIQP, CardinalityQP
from optiprune.solvers import InvalidSolutionError, Solution, SolveStats, Status, check_solution

PROBLEM = CardinalityQP(np.diag([1.0, 2.0, 4.0]), offset=0.5, k=2)


def solution(x: Any = (1, 1, 0), energy: float = 3.5, **changes: Any) -> Solution:
    given = {
        "bound": None,
        "status": Status.FEASIBLE,
        "stats": SolveStats("liar", message="its own words"),
    }
    return Solution(None if x is None else np.array(x), energy, **{**given, **changes})


def test_a_true_claim_passes() -> None:
    assert check_solution(PROBLEM, solution()) == 3.5
    assert check_solution(PROBLEM, solution(bound=3.5, status=Status.OPTIMAL)) == 3.5
    assert check_solution(PROBLEM, solution(energy=3.5 + 1e-7)) == 3.5


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        ({"energy": 3.4}, "claims energy 3.4, but x has energy 3.5"),
        ({"energy": math.nan}, "claims energy nan"),
        ({"x": (1, 1)}, r"bad assignment.*shape \(3,\)"),
        ({"x": (1, 0.5, 0)}, "bad assignment"),
        ({"x": (1, 1, 1), "energy": 7.5}, r"infeasible x \(violation 1\)"),
        ({"x": None}, "returned no solution"),
        ({"status": Status.FAILED}, "failed.*its own words"),
        ({"status": Status.INFEASIBLE}, "infeasible"),
        ({"bound": 4.0}, "claims the bound 4.0, above the energy 3.5"),
        ({"bound": math.inf}, "claims the bound inf"),
        ({"bound": math.nan}, "claims the bound nan"),
    ],
)
def test_false_claims_are_named(claim: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSolutionError, match=words) as e:
        check_solution(PROBLEM, solution(**claim))
    assert "liar" in str(e.value)


def test_something_else_is_no_solution() -> None:
    with pytest.raises(InvalidSolutionError, match="expected a Solution, got dict"):
        check_solution(PROBLEM, {"x": [1, 1, 0]})


def test_the_tolerance_is_relative_to_the_energy() -> None:
    big = CardinalityQP(np.diag([1e9, 2e9, 4e9]), k=2)
    assert check_solution(big, solution(energy=3e9 + 100)) == 3e9
    with pytest.raises(InvalidSolutionError, match="claims energy"):
        check_solution(big, solution(energy=3e9 + 1e4))
    with pytest.raises(InvalidSolutionError, match="claims energy"):
        check_solution(big, solution(energy=3e9 + 100), tolerance=1e-9)


def test_weights_of_an_miqp_must_respect_the_gates() -> None:
    problem = MIQP(np.eye(2), [1.0, 3.0], k=1, M=2.0)
    # w = 2 at its bound: 1/2 * 4 - 3 * 2 = -4
    good = solution((0, 1), -4.0, weights=np.array([0.0, 2.0]))
    assert check_solution(problem, good) == -4.0
    for weights in ([0.5, 2.0], [0.0, 2.5], [0.0]):
        with pytest.raises(InvalidSolutionError, match="outside -M x <= w <= M x"):
            check_solution(problem, solution((0, 1), -4.0, weights=np.array(weights)))


def test_weights_of_an_miqp_must_have_the_energy_claimed() -> None:
    problem = MIQP(np.eye(2), [1.0, 3.0], k=1, M=2.0)
    for w, energy in (
        ([0.0, 1.0], "-2.5"),
        ([0.0, math.nan], "nan"),
        ([math.nan, 2.0], "nan"),
        ([0.0, -math.inf], "-inf"),
    ):
        with pytest.raises(InvalidSolutionError, match="weights") as e:
            check_solution(problem, solution((0, 1), -4.0, weights=np.array(w)))
        assert energy in str(e.value)
    unbounded = MIQP(np.eye(2), [1.0, 3.0], k=1)
    with pytest.raises(InvalidSolutionError, match="not finite"):
        check_solution(unbounded, solution((0, 1), -4.5, weights=np.array([0.0, math.inf])))
    # within the tolerance of the energy
    near = np.array([0.0, 3.0 + 1e-4])
    assert check_solution(unbounded, solution((0, 1), -4.5, weights=near)) == -4.5
