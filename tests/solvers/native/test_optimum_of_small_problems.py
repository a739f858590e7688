"""Native solvers against exhaustive search, and exhaustive search against brute force.

Greedy is exempt from reaching the optimum: it misses it in about a third of these problems.
"""

import numpy as np
import pytest

from optiprune.solvers import Status, UnsupportedProblemError, get
from optiprune.solvers.native.exhaustive import assignments

_BINARY = [
    "qubo", "integer-qubo", "pruning-qubo", "cardinality", "pruning", "factored", "groups", "n:m",
]  # fmt: skip


@pytest.mark.parametrize("kind", [*_BINARY, "budget", "equation"])
@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_exhaustive_equals_brute_force(kind, n, make, brute_force):
    for seed in range(3):
        p = make(kind, n, seed)
        best = brute_force(p)
        sol = get("exhaustive").solve(p)
        if np.isinf(best):
            assert sol.status is Status.INFEASIBLE
            continue
        assert sol.status is Status.OPTIMAL
        assert sol.energy == pytest.approx(best, abs=1e-12)
        assert sol.bound == pytest.approx(sol.energy)
        assert sol.stats.moves == assignments(p)


@pytest.fixture(scope="module")
def two_hundred(make):
    """25 problems of n = 20 of each binary kind, with their exhaustive optimum."""
    problems = [make(kind, 20, 100 + s) for kind in _BINARY for s in range(25)]
    return [(p, get("exhaustive").solve(p)) for p in problems]


@pytest.mark.parametrize("name", ["annealing", "tabu", "local-search", "auto"])
def test_defaults_reach_the_optimum_in_all_of_200_problems(name, two_hundred):
    solver = get(name)
    missed = []
    for seed, (p, exact) in enumerate(two_hundred):
        assert exact.status is Status.OPTIMAL
        sol = solver.solve(p, seed=seed)
        if sol.energy > exact.energy + 1e-9 * (1 + abs(exact.energy)):
            missed.append((seed, sol.energy - exact.energy))
    assert not missed


@pytest.mark.parametrize("options", [{"moves": "metropolis"}, {"precision": "float32"}])
def test_so_do_the_variants_of_annealing(options, two_hundred):
    solver = get("annealing", **options)
    for seed, (p, exact) in enumerate(two_hundred[::4]):
        gap = solver.solve(p, seed=seed).energy - exact.energy
        assert gap <= 1e-6 * (1 + abs(exact.energy))


@pytest.mark.parametrize("name", ["annealing", "local-search", "auto"])
@pytest.mark.parametrize("kind", ["budget", "equation"])
def test_budgets_are_solved_to_the_optimum(name, kind, make):
    for seed in range(10):
        p = make(kind, 16, seed)
        exact = get("exhaustive").solve(p)
        sol = get(name).solve(p, seed=seed)
        assert sol.energy == pytest.approx(exact.energy, abs=1e-9)


def test_exhaustive_stopped_early_claims_nothing(make):
    from optiprune.solvers import IterationLimit

    p = make("cardinality", 20, 0)
    sol = get("exhaustive").solve(p, stop=IterationLimit(1000))
    assert sol.status is Status.FEASIBLE
    assert sol.bound is None
    assert sol.stats.moves == 1000


@pytest.mark.parametrize(
    ("kind", "n", "options"),
    [("qubo", 40, {}), ("cardinality", 60, {}), ("budget", 40, {}), ("miqp", 60, {}),
     ("qubo", 11, {"max_assignments": 1024})],
)  # fmt: skip
def test_exhaustive_refuses_too_many_assignments_and_names_a_way_out(kind, n, options, make):
    with pytest.raises(UnsupportedProblemError, match=r"fix_variables.*max_assignments"):
        get("exhaustive", **options).solve(make(kind, n, 0))


def test_what_counts_is_the_number_of_assignments_not_n(make):
    # 2 of 100: 4950 assignments; 2:4 in 8 groups: 6 ** 8
    from optiprune.problems import CardinalityQP

    p = CardinalityQP(np.diag(np.arange(100.0)), k=2)
    sol = get("exhaustive").solve(p)
    assert sol.stats.moves == 4950
    assert np.flatnonzero(sol.x).tolist() == [0, 1]
    assert assignments(make("n:m", 32, 0)) == 6**8
