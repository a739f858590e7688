"""Problem makers shared by the tests of the native solvers."""

import itertools

import numpy as np
import pytest

from optiprune.problems import MIQP, QUBO, BudgetQP, CardinalityQP, FactoredMatrix


def _pruning_form(generator, n, samples, spread=1.0):
    """(1 - x)' (ww' * H) (1 - x): the loss of removing weights, signs mixed, H from samples."""
    w = generator.standard_normal(n) * np.exp(spread * generator.standard_normal(n) * 0.5)
    g = generator.standard_normal((samples, n)) / np.sqrt(samples)
    z = 0.5 * np.outer(w, w) * (g.T @ g)
    return z, -2.0 * z.sum(axis=1), float(z.sum())


def _make(kind, n, seed):
    r = np.random.default_rng([seed, n])
    a = r.standard_normal((n, n))
    c = r.standard_normal(n)
    if kind == "qubo":
        return QUBO(a + a.T, c, 0.25)
    if kind == "integer-qubo":
        m = r.integers(-50, 51, (n, n))
        return QUBO(m + m.T, r.integers(-50, 51, n))
    if kind == "pruning-qubo":
        q, lin, off = _pruning_form(r, n, max(2, n // 2))
        return QUBO(q, 0.7 * lin, off)
    if kind == "cardinality":
        return CardinalityQP(a + a.T, c, -1.5, k=n // 2)
    if kind == "pruning":
        q, lin, off = _pruning_form(r, n, max(2, n // 2))
        return CardinalityQP(q, lin, off, k=int(r.integers(1, n)) if n > 1 else n)
    if kind == "factored":
        f = r.standard_normal((max(2, n // 3), n)) * r.standard_normal(n)
        return CardinalityQP(FactoredMatrix(f, 0.1 * np.abs(c)), c, k=n // 3)
    if kind == "groups":
        q, lin, off = _pruning_form(r, n, n)
        g = r.permutation(np.arange(n) % 4)
        sizes = np.bincount(g, minlength=4)
        return CardinalityQP(q, lin, off, k=(sizes + 1) // 2, groups=g)
    if kind == "n:m":
        q, lin, off = _pruning_form(r, n, n)
        g = np.arange(n) // 4
        return CardinalityQP(q, lin, off, k=np.minimum(2, np.bincount(g)), groups=g)
    if kind == "budget":
        w = r.integers(1, 10, (2, n)).astype(float)
        return BudgetQP(a + a.T, c, A=w, upper=w.sum(1) * 0.5, lower=[w[0].sum() * 0.25, -np.inf])
    if kind == "equation":
        w = r.integers(1, 5, (1, n)).astype(float)
        return BudgetQP(a + a.T, c, A=w, upper=[w.sum() // 2], lower=[w.sum() // 2])
    if kind == "miqp":
        x = r.standard_normal((2 * n, n))
        return MIQP(x.T @ x / n, 2 * c, k=n // 3)
    if kind == "singular-miqp":
        x = r.standard_normal((max(1, n // 2), n))
        h = x.T @ x / n
        return MIQP(h, h @ c, k=2 * n // 3)
    if kind == "bounded-miqp":
        x = r.standard_normal((max(1, n // 2), n))
        h = x.T @ x / n
        return MIQP(h, h @ (2 * c), k=n // 2, M=0.5)
    raise ValueError(kind)


@pytest.fixture(scope="session")
def make():
    """make(kind, n, seed) -> a problem of that kind."""
    return _make


@pytest.fixture(scope="session")
def brute_force():
    """brute_force(problem) -> the least energy of a feasible assignment, by trying all."""

    def least(problem):
        best = np.inf
        for bits in itertools.product((0, 1), repeat=problem.n):
            x = np.array(bits, dtype=np.int8)
            if problem.violation(x) <= 1e-9:
                best = min(best, problem.energy(x))
        return best

    return least
