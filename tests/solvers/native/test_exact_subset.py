"""Branch and bound for best subset selection: the optimum, always; an honest bound before."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune import solvers
from optiprune.problems import MIQP, FactoredMatrix, ProblemError
from optiprune.problems.generators import layer_miqp
from optiprune.solvers import IterationLimit, Status, Target, TimeLimit
from optiprune.solvers.base import Watch
from optiprune.solvers.native.branch_kernels import SLOTS, STACK
from optiprune.solvers.native.chunks import Incumbent
from optiprune.solvers.native.subset_diagonal import improve_diagonal
from optiprune.solvers.native.subset_kernels import relax_subset
from optiprune.solvers.native.subset_relaxation import Scratch, relax_root, subset_form
from optiprune.solvers.native.subset_tree import SubsetTree
from optiprune.solvers.stop import Limits


def random_miqp(seed: int, most: int = 12) -> MIQP:
    """Any scale and conditioning: singular H, dead and equal weights, active bounds; n <= most."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, most))
    samples = int(rng.integers(1, 2 * n + 2))
    X = rng.normal(size=(samples, n)) @ np.diag(10.0 ** rng.uniform(-2, 2, n))
    kind = rng.integers(5)
    if kind == 1:
        X[:, rng.random(n) < 0.3] = 0.0
    elif kind == 2:
        X = X[:, rng.integers(0, n, n)]
    elif kind == 3:
        X[:, :] = X[:, :1]
    elif kind == 4:
        X += 3.0 * np.abs(X).max() * rng.random((samples, 1))
    target = X @ rng.normal(size=n) + rng.normal(size=samples) * rng.choice([0.0, 1.0])
    scale = 10.0 ** rng.integers(-8, 9)
    M = [np.inf, 10.0 ** rng.uniform(-2, 2), rng.choice([0.0, 0.5, 2.0], size=n)][
        int(rng.integers(3))
    ]
    H = FactoredMatrix(X * math.sqrt(scale)) if rng.integers(4) == 0 else scale * (X.T @ X)
    return MIQP(
        H,
        scale * (X.T @ target),
        k=int(rng.integers(0, n + 1)),
        M=M,
        offset=float(rng.choice([0.0, 0.5 * scale * (target @ target)])),
    )


def tolerance(problem: MIQP, x: np.ndarray) -> float:
    """A small part of the terms that the energy of an answer is the sum of."""
    w = np.abs(problem.weights(x))
    return 1e-8 * float(w @ np.abs(problem.dense()) @ w + np.abs(problem.b) @ w) + 1e-300


def check(problem: MIQP, stop: solvers.Stop | None = None) -> Status:
    best = solvers.get("exhaustive").solve(problem)
    got = solvers.get("exact").solve(problem, stop=stop)
    assert best.x is not None
    slack = tolerance(problem, best.x)
    assert got.energy >= best.energy - slack
    assert got.bound is None or got.bound <= best.energy + slack
    if got.status is Status.OPTIMAL:
        assert got.energy <= best.energy + slack
    return got.status


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**31))
def test_the_optimum_with_a_proof(seed: int) -> None:
    assert check(random_miqp(seed)) is Status.OPTIMAL


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 4))
def test_a_bound_that_holds_when_stopped(seed: int, passes: int) -> None:
    check(random_miqp(seed), IterationLimit(passes))


@pytest.mark.slow
def test_a_thousand_supports_of_many_problems() -> None:
    for seed in range(2000):
        assert check(random_miqp(seed)) is Status.OPTIMAL, seed


def well_conditioned(n: int, k: int, seed: int) -> MIQP:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(2 * n, n)) + 0.5 * rng.normal(size=(2 * n, 1))
    H = X.T @ X / len(X)
    return MIQP(H, H @ rng.normal(size=n), k=k)


def bounded(n: int, k: int, seed: int) -> MIQP:
    """Bounds that cut off the unbounded weights of most supports."""
    p = well_conditioned(n, k, seed)
    return MIQP(p.H, p.b, k=k, M=0.5, offset=1.0)


@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_all_sizes_of_support_of_equal_weights(k: int) -> None:
    # ||1 - sum of the weights kept||^2: one weight does what all do
    problem = MIQP(np.full((3, 3), 2.0), np.full(3, 2.0), k=k, offset=1.0)
    got = solvers.get("exact").solve(problem)
    assert got.status is Status.OPTIMAL
    assert got.energy == pytest.approx(1.0 if k == 0 else 0.0, abs=1e-8)


def test_by_hand() -> None:
    # independent weights: each is worth b^2 / (2 h), which is 2, 4.5 and 1, until M caps the second
    H, b = np.diag([1.0, 1.0, 2.0]), np.array([2.0, 3.0, 2.0])
    assert solvers.get("exact").solve(MIQP(H, b, k=1, offset=10.0)).energy == pytest.approx(5.5)
    capped = solvers.get("exact").solve(MIQP(H, b, k=1, M=[9.0, 0.5, 9.0]))
    assert capped.energy == pytest.approx(-2.0)  # the second: 3 / 2 - 1 / 8
    assert capped.x.tolist() == [1, 0, 0]
    assert capped.status is Status.OPTIMAL


def test_a_weight_that_only_b_sees() -> None:
    H, b = np.diag([1.0, 0.0]), np.array([1.0, 1.0])
    got = solvers.get("exact").solve(MIQP(H, b, k=1, M=2.0))
    assert got.status is Status.OPTIMAL
    assert got.energy == pytest.approx(-2.0)
    with pytest.raises(ProblemError, match="unbounded below"):
        solvers.get("exact").solve(MIQP(H, b, k=1))


def test_float32_and_factored() -> None:
    p = layer_miqp(12, 4, factored=True, seed=3)
    single = MIQP(p.dense().astype(np.float32), p.b.astype(np.float32), k=4, offset=p.offset)
    for problem in (p, single):
        best = solvers.get("exhaustive").solve(problem)
        got = solvers.get("exact").solve(problem)
        assert got.status is Status.OPTIMAL
        assert got.energy == pytest.approx(best.energy, rel=1e-6)


def test_scaling_changes_nothing() -> None:
    p = well_conditioned(24, 8, 1)
    s = 10.0 ** np.random.default_rng(0).uniform(-3, 3, 24)
    q = MIQP(1e9 * p.H * np.outer(s, s), 1e9 * p.b * s, k=8)
    a, b = solvers.get("exact").solve(p), solvers.get("exact").solve(q)
    assert a.x.tolist() == b.x.tolist()
    assert b.energy == pytest.approx(1e9 * a.energy)
    assert b.stats.extra["root_bound"] == pytest.approx(1e9 * a.stats.extra["root_bound"], rel=1e-4)


def tree_of(problem: MIQP, x: np.ndarray, memory_mb: int = 16) -> tuple[SubsetTree, Incumbent]:
    incumbent = Incumbent(problem, Watch(Limits()))
    incumbent.measure(x)
    form = subset_form(problem)
    assert form is not None
    scratch = Scratch(problem.n)
    root = relax_root(form, scratch)
    return SubsetTree(problem, form, root, scratch, incumbent, 1e-9, memory_mb), incumbent


@pytest.mark.parametrize("make", [well_conditioned, bounded])
def test_a_poor_first_incumbent_is_improved_on(make: type[MIQP]) -> None:
    """The tree by itself, from an arbitrary support, without a heuristic."""
    problem = make(14, 5, 4)
    tree, incumbent = tree_of(problem, np.r_[[0] * 9, [1] * 5].astype(np.int8))
    assert tree.search(Watch(Limits()), incumbent, math.inf) is None
    assert tree.done
    best = solvers.get("exhaustive").solve(problem)
    assert incumbent.energy == pytest.approx(best.energy, abs=1e-8)
    assert tree.bound == pytest.approx(best.energy, abs=1e-8)


def test_a_full_heap_goes_on_depth_first() -> None:
    problem = layer_miqp(40, 12, correlation=0.9, seed=2)
    start = solvers.get("local-search").solve(problem).x
    assert start is not None
    found = []
    for full in (True, False):
        tree, incumbent = tree_of(problem, start)
        if full:
            tree.counters[SLOTS] = 0  # no free places
        stacked = False
        while not tree.done:
            tree.search(Watch(Limits()), incumbent, 50)
            stacked |= bool(tree.counters[STACK])
            assert tree.bound <= incumbent.energy
        assert stacked == full
        found.append(incumbent.energy)
    assert found[0] == pytest.approx(found[1], rel=1e-9)


def test_the_bound_holds_at_any_point() -> None:
    """The tangent is below every support's energy, wherever the Newton steps have come to."""
    for seed in range(40):
        problem = random_miqp(seed)
        n, k = problem.n, problem.k
        best = solvers.get("exhaustive").solve(problem)
        assert best.x is not None
        form, s = subset_form(problem), Scratch(n)
        assert form is not None
        slack = tolerance(problem, best.x) / form.scale
        w, z, d = np.random.default_rng(seed).normal(size=n), np.ones(n), form.d.copy()
        for rounds in (0, 1, 1, 5):
            _, bound = relax_subset(
                form.H, form.b, form.M, np.arange(n), n, k, d, w, z, np.empty(n), np.empty(n),
                s.work, s.whole[0], s.whole[1], s.L, np.inf, 0.0, rounds,
            )  # fmt: skip
            assert bound <= form.inward(best.energy) + slack
            improve_diagonal(
                form.H, np.arange(n), n, d, w, z, 1e-3, s.L, s.R, s.S, s.wide[0], s.wide[1]
            )
            assert (d > 0).all()
            assert np.linalg.eigvalsh(form.H - np.diag(d))[0] > -1e-14 * n


def test_the_relaxation_against_its_definition() -> None:
    """At the minimum, z is best for w, w for z, and the bound meets the value."""
    problem = well_conditioned(20, 6, 9)
    form, s = subset_form(problem), Scratch(20)
    assert form is not None
    w, z, p, h = np.zeros(20), np.zeros(20), np.zeros(20), np.zeros(20)
    value, bound = relax_subset(
        form.H, form.b, form.M, np.arange(20), 20, 6, form.d, w, z, p, h, s.work, s.whole[0],
        s.whole[1], s.L, np.inf, 0.0, 40,
    )  # fmt: skip
    assert bound == pytest.approx(value, rel=1e-9)
    assert z.sum() == pytest.approx(6.0)
    on = z > 0
    A = form.H - np.diag(form.d)
    penalty = 0.5 * float((form.d[on] * w[on] ** 2 / z[on]).sum())
    assert value == pytest.approx(0.5 * w @ A @ w - form.b @ w + penalty)
    # stationary in w where z > 0
    assert (A @ w - form.b + np.divide(form.d * w, z, where=on, out=np.zeros(20)))[
        on
    ] == pytest.approx(0.0, abs=1e-7)


def test_the_diagonal_improves_the_bound() -> None:
    problem = layer_miqp(40, 12, correlation=0.9, seed=0)
    form = subset_form(problem)
    assert form is not None
    s = Scratch(40)
    w, z = np.zeros(40), np.zeros(40)
    _, uniform = relax_subset(
        form.H, form.b, form.M, np.arange(40), 40, 12, form.d, w, z, np.empty(40), np.empty(40),
        s.work, s.whole[0], s.whole[1], s.L, np.inf, 0.0, 60,
    )  # fmt: skip
    free = -0.5 * float(form.b @ np.linalg.solve(form.H, form.b))
    best = solvers.get("local-search").solve(problem).energy
    gap = (best - problem.offset) / form.scale - free
    assert free < uniform < relax_root(form, s).bound - 0.1 * gap


def test_chunks_do_not_change_the_tree() -> None:
    problem = layer_miqp(40, 12, correlation=0.9, seed=0)
    whole = solvers.get("exact").solve(problem, seed=1)
    limited = solvers.get("exact").solve(problem, seed=1, stop=IterationLimit(10**9))
    assert np.array_equal(whole.x, limited.x)
    assert whole.stats.extra == limited.stats.extra


def test_the_time_limit_is_kept_with_a_bound() -> None:
    problem = layer_miqp(200, 60, correlation=0.9, seed=6)
    solvers.get("exact").solve(well_conditioned(8, 3, 0))  # compile first
    got = solvers.get("exact").solve(problem, stop=TimeLimit(1.5))
    assert got.stats.wall_s < 1.7
    assert got.status is Status.FEASIBLE
    assert got.bound is not None
    assert problem.energy(np.ones(200, np.int8)) < got.bound < got.energy


def test_a_target_is_enough() -> None:
    problem = layer_miqp(64, 20, correlation=0.9, seed=7)
    x = np.r_[[1] * 20, [0] * 44].astype(np.int8)
    got = solvers.get("exact").solve(problem, stop=Target(problem.energy(x)))
    assert got.stats.stop_reason == "target"


def test_an_interrupt_returns_the_incumbent_with_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = layer_miqp(64, 20, correlation=0.9, seed=7)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("optiprune.solvers.native.subset_tree.search_subsets", interrupt)
    got = solvers.get("exact").solve(problem)
    assert got.stats.stop_reason == "interrupted"
    assert got.status is Status.FEASIBLE
    assert got.bound is not None
    assert got.bound < got.energy
