"""Generated problems: known optima are optimal, formulas hold, seeds decide everything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune.problems import (
    PALUBECKIS_BEST_KNOWN,
    PALUBECKIS_INSTANCES,
    InfeasibleProblemError,
    ProblemError,
    fisher_problem,
    layer_miqp,
    layer_nm_problem,
    layer_problem,
    palubeckis,
    palubeckis_instance,
    planted_cardinality,
    planted_qubo,
)


class TestPlanted:
    @settings(deadline=None, max_examples=30)
    @given(seed=st.integers(0, 10_000), n=st.integers(1, 11), length=st.integers(3, 6))
    def test_qubo(self, brute, seed, n, length):
        p, x, energy = planted_qubo(n, length=length, seed=seed)
        assert p.energy(x) == energy
        assert p.energies(brute.all(n)).min() == energy

    @settings(deadline=None, max_examples=30)
    @given(seed=st.integers(0, 10_000))
    def test_cardinality(self, brute, seed):
        groups = np.repeat([0, 1, 2], [4, 5, 2])
        p, x, energy = planted_cardinality(11, [2, 3, 0], groups=groups, seed=seed)
        assert p.violation(x) == 0
        assert p.energy(x) == energy == brute.minimum(p)[0]

    def test_the_constraint_matters(self, brute):
        hidden = 0
        for seed in range(20):
            p, _, energy = planted_cardinality(10, 4, seed=seed)
            hidden += p.energies(brute.all(10)).min() < energy
        assert hidden >= 15

    def test_descent_does_not_find_it(self):
        # steepest descent from random starts: else the planting would be no test of a solver
        p, _, energy = planted_qubo(100, seed=1)
        rng = np.random.default_rng(12345)
        for _ in range(20):
            x = rng.integers(0, 2, 100)
            while True:
                d = p.flip_deltas(x)
                if d.min() >= 0:
                    break
                x[d.argmin()] ^= 1
            assert p.energy(x) > energy

    def test_seeds(self):
        a, b = planted_qubo(8, seed=1), planted_qubo(8, seed=1)
        np.testing.assert_array_equal(a.problem.Q, b.problem.Q)
        assert not np.array_equal(a.problem.Q, planted_qubo(8, seed=2).problem.Q)
        s = np.random.SeedSequence(1)
        np.testing.assert_array_equal(planted_qubo(8, seed=s).problem.Q, a.problem.Q)

    @pytest.mark.parametrize(
        "options",
        [{"n": 0}, {"loops": 0}, {"length": 2}, {"spread": 0}, {"seed": -1}, {"seed": 1.5}],
    )
    def test_bad_values(self, options):
        with pytest.raises(ProblemError):
            planted_qubo(**{"n": 5, **options})

    def test_bad_cardinality(self):
        with pytest.raises(InfeasibleProblemError):
            planted_cardinality(5, 6)


class TestLayer:
    def test_energy_is_the_output_error(self):
        # the same X and w, through the MIQP's factor and its target
        p = layer_problem(12, 5, samples=30, seed=3)
        m = layer_miqp(12, 5, samples=30, seed=3, factored=True)
        X = m.H.factor / np.sqrt(2.0 / 30)
        w = np.linalg.lstsq(m.dense(), m.b, rcond=None)[0]  # the dense weights
        rng = np.random.default_rng(0)
        for _ in range(10):
            x = rng.integers(0, 2, 12)
            want = ((X @ (w * x) - X @ w) ** 2).sum() / 30
            assert p.energy(x) == pytest.approx(want, rel=1e-8, abs=1e-10)
            assert m.energy_of(w * x) == pytest.approx(want, rel=1e-8, abs=1e-10)
        assert p.energy(np.ones(12)) == pytest.approx(0, abs=1e-10)

    def test_refit_is_never_worse(self, brute):
        p, m = layer_problem(8, 3, seed=5), layer_miqp(8, 3, seed=5)
        for x in brute.all(8):
            assert m.energy(x) <= p.energy(x) + 1e-9
        assert brute.minimum(m)[0] < 0.9 * brute.minimum(p)[0]

    def test_factor_and_dense_agree(self, brute):
        p, f = layer_problem(9, 4, seed=1), layer_problem(9, 4, seed=1, factored=True)
        assert f.is_factored
        assert not p.is_factored
        X = brute.all(9)
        np.testing.assert_allclose(p.energies(X), f.energies(X), atol=1e-9)

    def test_couplings_have_both_signs_and_outliers_show(self):
        q = layer_problem(64, 32, seed=0).dense()
        negative = (q[np.triu_indices(64, 1)] < 0).mean()
        assert 0.3 < negative < 0.7
        d = np.diag(layer_problem(64, 32, outliers=0.05, seed=0).dense())
        assert d.max() > 20 * np.median(d)

    def test_n_m(self):
        p = layer_nm_problem(16, 2, 4, seed=0)
        assert p.n_groups == 4
        assert p.k.tolist() == [2] * 4
        assert p.groups.tolist() == np.repeat(range(4), 4).tolist()
        assert p.violation([1, 1, 0, 0] * 4) == 0
        for keep, of in ((5, 4), (2, 3), (-1, 4)):
            with pytest.raises(ProblemError):
                layer_nm_problem(16, keep, of)

    @pytest.mark.parametrize(
        "options", [{"correlation": 1.5}, {"outliers": -0.1}, {"samples": 0}, {"n": 0}]
    )
    def test_bad_values(self, options):
        with pytest.raises(ProblemError):
            layer_problem(**{"n": 8, "k": 2, **options})
        with pytest.raises(ProblemError):
            layer_miqp(8, 2, bound=0.0)


class TestFisher:
    def test_now_has_energy_zero(self):
        for seed in range(5):
            p, current = fisher_problem(40, 15, seed=seed)
            assert current.sum() == 15
            assert p.violation(current) == 0
            assert p.energy(current) == pytest.approx(0, abs=1e-9)
            assert p.Q.rank == 20
            assert p.is_factored

    def test_a_flip_by_hand(self):
        # one weight, one sample, pruned now: g w + 1/2 (g^2 + rho) w^2 with rho = ridge g^2
        p, current = fisher_problem(1, 0, samples=1, ridge=0.5, seed=4)
        assert current.tolist() == [0]
        gw = np.sqrt(2.0) * p.Q.factor[0, 0]
        assert p.fields([0])[0] == pytest.approx(gw + 0.75 * gw**2)

    def test_some_exchange_improves(self):
        p, current = fisher_problem(40, 15, seed=0)
        deltas = [
            p.exchange_delta(current, i, j)
            for i in np.flatnonzero(current)
            for j in np.flatnonzero(1 - current)
        ]
        assert min(deltas) < 0

    @pytest.mark.parametrize(
        "options", [{"k": 9}, {"ridge": -1.0}, {"correlation": 2.0}, {"samples": 0}]
    )
    def test_bad_values(self, options):
        with pytest.raises(ProblemError):
            fisher_problem(**{"n": 8, "k": 2, **options})


def palubeckis_by_the_draw(n, density, seed):
    """The published program, one draw at a time; the matrix that is maximised."""
    state = seed
    q = np.zeros((n, n))

    def draw(width):
        nonlocal state
        state = 16807 * state % (2**31 - 1)
        return width * state / 2147483648.0

    for i in range(n):
        q[i, i] = np.floor(draw(201.0)) - 100
        for j in range(i + 1, n):
            if np.float32(draw(100.0)) <= density:
                q[i, j] = q[j, i] = np.floor(draw(201.0)) - 100
    return q


class TestPalubeckis:
    @pytest.mark.parametrize(
        ("n", "density", "seed"),
        [(1, 50, 3), (2, 50, 31000), (9, 0, 5), (80, 50, 31000), (80, 80, 32000), (60, 100, 34000)],
    )
    def test_same_as_one_draw_at_a_time(self, n, density, seed):
        p = palubeckis(n, density, seed)
        want = palubeckis_by_the_draw(n, density, seed)
        np.testing.assert_array_equal(-p.dense(np.float64), want)

    def test_instances(self):
        assert set(PALUBECKIS_BEST_KNOWN) <= set(PALUBECKIS_INSTANCES)
        with pytest.raises(ProblemError, match=r"p3000\.1"):
            palubeckis_instance("p1000.1")

    @pytest.mark.parametrize(
        "arguments", [(0, 50, 1), (5, 101, 1), (5, 50, 0), (5, 50, 2**31 - 1), (5, -1, 1)]
    )
    def test_bad_values(self, arguments):
        with pytest.raises(ProblemError):
            palubeckis(*arguments)
