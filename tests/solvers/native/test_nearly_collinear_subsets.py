"""Proofs and bounds where columns are nearly collinear, unseen, tiny or huge: by enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from optiprune import solvers
from optiprune.problems import MIQP, ProblemError
from optiprune.solvers import IterationLimit, Solution, Status
from optiprune.solvers.native import subset_relaxation
from optiprune.solvers.native.subset_bound import all_free


def energies(p: MIQP) -> dict[tuple[int, ...], float]:
    """The energy of every support."""
    on = np.arange(p.n)
    return {c: p.energy(np.isin(on, c).astype(np.int8)) for c in itertools.combinations(on, p.k)}


def check(p: MIQP, got: Solution, best: float, gain: float) -> None:
    slack = 4e-9 * gain + 1e-13 * abs(p.offset)
    if got.bound is not None:
        assert got.bound <= best + 1e-12 * gain + 1e-14 * abs(p.offset)
    if got.status is Status.OPTIMAL:
        assert got.energy <= best + slack
        assert got.bound is not None
        assert got.bound >= got.energy - slack


def check_all(p: MIQP, x0: np.ndarray | None = None) -> Status:
    """Exact, exhaustive and both bounds against all energies; the status of ``exact``."""
    found = energies(p)
    best = min(found.values())
    gain = max(abs(e - p.offset) for e in found.values())
    exact = solvers.get("exact").solve(p, x0=x0)
    check(p, exact, best, gain)
    whole = solvers.get("exhaustive").solve(p, x0=x0)
    assert whole.status is Status.OPTIMAL
    check(p, whole, best, gain)
    for value in (solvers.bound(p).value, all_free(p)):
        assert value <= best + 1e-12 * gain + 1e-14 * abs(p.offset)
    return exact.status


def nearly_collinear(seed: int) -> MIQP | None:
    """Some columns differ from another by 1e-9 to 1e-3, are equal, or 0; any scale; None if unfit.

    None if a support is unbounded below.
    """
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 7))
    k, r = int(rng.integers(1, n)), int(rng.integers(1, n + 3))
    G = rng.normal(size=(r, n))
    kind = int(rng.integers(5))
    if kind <= 2:
        size = 10.0 ** rng.uniform(-9, -3)
        for j in range(1, n):
            if rng.random() < 0.5:
                G[:, j] = G[:, 0] + size * rng.normal(size=r)
    elif kind == 3:
        G[:, rng.integers(n)] = G[:, 0]
    else:
        G[:, rng.integers(n)] = 0.0
    if rng.integers(4) == 0:
        G *= 10.0 ** rng.uniform(-4, 4, size=n)
    scale = 10.0 ** float(rng.choice([-12, -6, 0, 0, 6, 12]))
    M = np.full(n, np.inf)
    b = G.T @ rng.normal(size=r)
    choice = int(rng.integers(4))
    if choice == 0:
        M = 10.0 ** rng.uniform(-2, 2, size=n)
        if rng.integers(2):
            b = rng.normal(size=n)
    elif choice == 1:
        M[rng.random(n) < 0.3] = rng.choice([0.0, 0.5])
    p = MIQP(
        scale * (G.T @ G), scale * b, k=k, M=M, offset=scale * float(rng.choice([0.0, 1.0, -3.0]))
    )
    try:
        energies(p)
    except ProblemError:
        return None
    return p


def test_two_hundred_problems() -> None:
    proven = number = 0
    for seed in range(200):
        p = nearly_collinear(seed)
        if p is not None:
            number += 1
            proven += check_all(p) is Status.OPTIMAL
    assert number > 150
    assert proven > 0.9 * number


def test_an_incumbent_with_huge_weights_proves_nothing() -> None:
    G = np.array(
        [
            [0.8, 0.80000002, 0.80000029, 0.8],
            [0.3, 0.30000001, 0.29999999, -0.7],
            [-0.9, -0.90000013, -0.89999982, -0.7],
            [0.2, 0.19999995, 0.20000008, -0.4],
        ]
    )
    p = MIQP(G.T @ G, G.T @ [1.8, 1.4, 0.2, -1.3], k=2)
    for c in energies(p):
        assert check_all(p, np.isin(np.arange(4), c).astype(np.int8)) is Status.OPTIMAL


@pytest.mark.parametrize("rest", [1e-6, 5e-7])
@pytest.mark.parametrize("apart", [1e-8, 1e-9, 2e-10, 3e-11, 5e-12])
def test_what_the_second_of_a_pair_gains(apart: float, rest: float) -> None:
    H = np.eye(4)
    H[0, 1] = H[1, 0] = math.sqrt(1.0 - apart)
    p = MIQP(H, [1.0, H[0, 1] + rest, math.sqrt(0.8 * rest**2 / apart), 0.01], k=2)
    assert check_all(p) is Status.OPTIMAL


@pytest.mark.parametrize("size", [2e-7, 1e-6, 1e-5, 2e-5, 1e-4])
def test_a_direction_that_all_weights_together_do_not_use(size: float) -> None:
    """Six columns that differ in one small entry: a pair may be apart where all six are not."""
    G = np.array([[1.0] * 6, [0, 0, 0, 0, 0, size]])
    p = MIQP(G.T @ G, G.T @ [1.0, 1.0], k=2)
    assert check_all(p) is Status.OPTIMAL


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e-9, 1e-12, 1e-100, 1e100])
def test_a_weight_that_only_b_sees_at_any_scale(scale: float) -> None:
    p = MIQP(scale * np.diag([1.0, 1.0, 0.0]), scale * np.array([0.1, 0.05, 0.2]), k=1, M=1.0)
    for name in ("exact", "exhaustive"):
        got = solvers.get(name).solve(p)
        assert got.status is Status.OPTIMAL
        assert got.x.tolist() == [0, 0, 1]
        assert got.bound == pytest.approx(-0.2 * scale, rel=1e-8)
    assert solvers.bound(p).value == pytest.approx(-0.2 * scale, rel=1e-6)
    assert check_all(p) is Status.OPTIMAL


@pytest.mark.parametrize("size", [1e-170, 1e-155, 1e-145, 1e-130])
def test_energies_that_underflow(size: float) -> None:
    p = MIQP(np.eye(3), size * np.array([1.0, 2.0, 3.0]), k=1)
    got = solvers.get("exact").solve(p)
    assert got.energy == p.energy([0, 0, 1]) or got.status is Status.FEASIBLE
    assert got.bound is None or got.bound <= p.energy([0, 0, 1])
    assert solvers.bound(p).value <= p.energy([0, 0, 1])
    if size in (1e-170, 1e-130):
        assert got.status is Status.OPTIMAL


def test_nothing_is_claimed_without_a_valid_bound() -> None:
    """A singular H with some weights bounded: how far the others may go is not known."""
    p = MIQP(np.full((3, 3), 1.0), np.ones(3), k=2, M=[0.5, np.inf, np.inf])
    got = solvers.get("exact").solve(p)
    assert got.status is Status.FEASIBLE
    assert got.bound is None
    assert got.energy == pytest.approx(-0.5)
    assert solvers.bound(p).value == -math.inf


def test_the_tree_does_not_depend_on_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a time limit, what a linear system is measured to take decides nothing."""
    rng = np.random.default_rng(0)
    for _ in range(6):
        n = int(rng.integers(20, 36))
        X = rng.normal(size=(2 * n, n)) * 10.0 ** rng.uniform(-1, 1, size=n) + rng.normal()
        p = MIQP(X.T @ X, X.T @ rng.normal(size=2 * n), k=n // 3)
        found = []
        for pace in (1e-12, 1e-5):
            monkeypatch.setattr(subset_relaxation, "_SYSTEM_S", pace)
            got = solvers.get("exact").solve(p, stop=IterationLimit(20))
            found.append((got.energy, got.bound, got.x.tolist(), got.stats.extra))
        assert found[0] == found[1]
