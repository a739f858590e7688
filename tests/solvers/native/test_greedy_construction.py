import numpy as np
import pytest

from optiprune.problems import CardinalityQP
from optiprune.solvers import Status, get
from optiprune.solvers.native.construct import cheap_start, greedy_exchange_start
from optiprune.solvers.native.instance import build_instance


def _slow_greedy(p, forward):
    """Greedy by energies recomputed from scratch."""
    x = np.full(p.n, 0 if forward else 1, np.int8)
    while (p.counts(x) != p.k).any():
        best = None
        for i in range(p.n):
            g = p.groups[i]
            if x[i] == (1 if forward else 0) or p.counts(x)[g] == p.k[g]:
                continue
            y = x.copy()
            y[i] = 1 - y[i]
            e = p.energy(y)
            if best is None or e < best[0] - 1e-12:
                best = (e, i)
        x[best[1]] = 1 - x[best[1]]
    return x


@pytest.mark.parametrize("kind", ["cardinality", "pruning", "groups", "n:m", "factored"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_equals_naive_greedy(kind, direction, make):
    p = make(kind, 18, 5)
    inst = build_instance(p)
    x = inst.outward(greedy_exchange_start(inst, direction))
    np.testing.assert_array_equal(x, _slow_greedy(p, direction == "forward"))
    # the solver also looks at the k cheapest by their own cost
    cheap = cheap_start(p.linear + p.diagonal(), p.groups, p.k)
    sol = get("greedy", direction=direction).solve(p)
    assert sol.energy == pytest.approx(min(p.energy(x), p.energy(cheap)))


@pytest.mark.parametrize("kind", ["cardinality", "groups"])
def test_both_is_the_better_of_the_two(kind, make):
    for seed in range(5):
        p = make(kind, 30, seed)
        one = [get("greedy", direction=d).solve(p).energy for d in ("forward", "backward")]
        assert get("greedy").solve(p).energy == pytest.approx(min(one), abs=1e-12)


def test_cancelling_weights_by_hand():
    # weights 1 and 2 cancel (coupling -4): apart they cost 1 each, together -2
    q = np.diag([0.5, 1.0, 1.0])
    q[1, 2] = q[2, 1] = -2.0
    p = CardinalityQP(q, k=2)
    inst = build_instance(p)
    assert greedy_exchange_start(inst, "backward").tolist() == [0, 1, 1]
    # forward takes variable 0 first and cannot undo it
    assert greedy_exchange_start(inst, "forward")[0] == 1
    assert get("greedy").solve(p).energy == -2.0


def test_qubo_greedy_is_steepest_descent_from_both_ends(make):
    p = make("qubo", 25, 2)
    ends = []
    for value in (0, 1):
        x = np.full(25, value, np.int8)
        while (d := p.flip_deltas(x)).min() < -1e-12:
            x[d.argmin()] ^= 1
        ends.append(p.energy(x))
    assert get("greedy", direction="forward").solve(p).energy == pytest.approx(ends[0])
    assert get("greedy", direction="backward").solve(p).energy == pytest.approx(ends[1])
    assert get("greedy").solve(p).energy == pytest.approx(min(ends))


def test_miqp_forward_and_backward_equal_naive_selection(make):
    p = make("miqp", 10, 3)
    for direction in ("forward", "backward"):
        x = np.full(10, 0 if direction == "forward" else 1, np.int8)
        while x.sum() != p.k:
            trials = []
            for i in np.flatnonzero(x == (0 if direction == "forward" else 1)):
                y = x.copy()
                y[i] ^= 1
                trials.append((p.energy(y), i))
            x[min(trials)[1]] ^= 1
        sol = get("greedy", direction=direction).solve(p)
        np.testing.assert_array_equal(sol.x, x)
        assert sol.status is Status.FEASIBLE
