import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune.problems import QUBO, CardinalityQP, FactoredMatrix
from optiprune.solvers import SolverOptionError, TimeLimit, Watch, get
from optiprune.solvers.native.instance import OutOfTime, build_instance
from optiprune.solvers.stop import limits


def test_layout_by_hand():
    # x'Qx + c'x with Q = [[1, 2], [2, -3]], c = (0.5, 0)
    inst = build_instance(QUBO([[1.0, 2.0], [2.0, -3.0]], [0.5, 0.0], 7.0))
    np.testing.assert_array_equal(inst.J[:, :2], [[0, 4], [4, 0]])
    np.testing.assert_array_equal(inst.a, [1.5, -3.0])
    assert inst.energy(np.array([1, 1], np.int8)) == 1.5 - 3.0 + 4.0 + 7.0
    np.testing.assert_array_equal(inst.fields(np.array([1, 0], np.int8)), [1.5, 1.0])


@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 200])
def test_rows_are_padded_with_zeros_and_aligned(n, make):
    p = QUBO(np.zeros((0, 0))) if n == 0 else make("qubo", n, 0)
    J = build_instance(p).J
    assert J.shape[1] % 32 == 0
    assert J.shape[1] >= n
    assert n == 0 or J.ctypes.data % 64 == 0
    assert not J[:, n:].any()


@pytest.mark.parametrize("kind", ["qubo", "cardinality", "groups", "factored", "n:m"])
@pytest.mark.parametrize("n", [20, 150])
def test_energy_and_fields_are_the_problems(kind, n, make):
    p = make(kind, n, 3)
    inst = build_instance(p, "float64")
    r = np.random.default_rng(0)
    for _ in range(5):
        x = r.integers(0, 2, n).astype(np.int8)
        y = inst.inward(x)
        np.testing.assert_array_equal(inst.outward(y), x)
        assert inst.energy(y) == pytest.approx(p.energy(x), rel=1e-12)
        h = p.fields(x)
        np.testing.assert_allclose(inst.fields(y), h if inst.order is None else h[inst.order])


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(0, 2**31))
def test_groups_become_contiguous(groups, seed):
    g = np.array(groups)
    r = np.random.default_rng(seed)
    sizes = np.bincount(g, minlength=4)
    p = CardinalityQP(r.standard_normal((len(g), len(g))), k=sizes // 2, groups=g)
    inst = build_instance(p)
    order = np.arange(len(g)) if inst.order is None else inst.order
    assert (np.diff(g[order]) >= 0).all()
    np.testing.assert_array_equal(np.diff(inst.starts), sizes)


class TestPrecision:
    def _dtype(self, q, precision="auto"):
        return build_instance(QUBO(q), precision).J.dtype

    def test_gaussian_couplings_are_float32(self):
        a = np.random.default_rng(0).standard_normal((200, 200))
        assert self._dtype(a) == np.float32

    def test_small_problems_are_float64(self):
        assert self._dtype(np.eye(20)) == np.float64

    def test_integers_with_exact_sums_are_float32(self):
        a = np.random.default_rng(0).integers(-100, 101, (200, 200)).astype(float)
        assert self._dtype(a + a.T) == np.float32

    def test_integers_whose_sums_pass_2_to_24_are_float64(self):
        a = np.random.default_rng(0).integers(-(10**6), 10**6, (200, 200)).astype(float)
        assert self._dtype(a + a.T) == np.float64

    def test_a_large_penalty_hides_the_objective_from_float32(self):
        a = np.random.default_rng(0).standard_normal((200, 200))
        assert self._dtype(a + a.T + 1e5) == np.float64

    def test_values_out_of_the_range_of_float32_are_float64(self):
        a = np.random.default_rng(0).standard_normal((200, 200))
        assert self._dtype(1e-40 * a) == np.float64
        assert self._dtype(1e40 * a) == np.float64

    def test_a_factored_matrix_is_judged_the_same(self):
        f = np.random.default_rng(0).standard_normal((50, 200))
        assert build_instance(QUBO(FactoredMatrix(f))).J.dtype == np.float32
        shifted = np.vstack([f, np.full((1, 200), 1e4)])
        assert build_instance(QUBO(FactoredMatrix(shifted))).J.dtype == np.float64

    @pytest.mark.parametrize("precision", ["float32", "float64"])
    def test_a_choice_is_obeyed(self, precision):
        assert self._dtype(np.eye(150), precision) == np.dtype(precision)

    def test_an_unknown_one_is_refused(self):
        with pytest.raises(SolverOptionError, match="'half'"):
            get("annealing", precision="half")


def test_blocks_of_rows_equal_the_product_at_once():
    r = np.random.default_rng(0)
    p = CardinalityQP(FactoredMatrix(r.standard_normal((40, 600))), k=5)
    whole = build_instance(p)
    timed = build_instance(p, watch=Watch(limits(TimeLimit(60))))
    np.testing.assert_allclose(whole.J, timed.J, rtol=1e-4, atol=1e-4)


def test_a_time_limit_holds_during_the_conversion():
    p = QUBO(np.eye(600))
    with pytest.raises(OutOfTime):
        build_instance(p, watch=Watch(limits(TimeLimit(0.0))))
