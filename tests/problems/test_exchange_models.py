"""dimod and Pyomo models: the same energies and constraints, there and back, and solved."""

import dimod
import numpy as np
import pyomo.environ as pyo
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyomo import gdp

from optiprune.problems import (
    MIQP,
    QUBO,
    CardinalityQP,
    ProblemError,
    from_bqm,
    from_cqm,
    from_pyomo,
    to_bqm,
    to_cqm,
    to_penalty_qubo,
    to_pyomo,
)

KINDS = ("qubo", "cardinality", "groups", "knapsack", "covering", "mixed")


def same(brute, a, b):
    X = brute.all(a.n)
    np.testing.assert_allclose(a.energies(X), b.energies(X), atol=1e-9)
    for x in X:
        assert (a.violation(x) == 0) == (b.violation(x) == 0)


def small_miqp(M=2.0):
    a = np.random.default_rng(0).normal(size=(9, 4))
    return MIQP(a.T @ a, [1.0, -2.0, 3.0, 0.5], k=2, M=M, offset=1.0)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_bqm_energies(brute, seed):
    p = brute.random("qubo", seed, factored=seed % 3 == 0)
    bqm = to_bqm(p)
    assert list(bqm.variables) == list(range(p.n))
    X = brute.all(p.n)
    np.testing.assert_allclose(bqm.energies((X, range(p.n))), p.energies(X), atol=1e-9)
    same(brute, p, from_bqm(bqm))
    same(brute, p, from_bqm(bqm.change_vartype("SPIN", inplace=False)))


def test_bqm_labels():
    bqm = dimod.BQM({"a": 1.0, "b": 2.0}, {("a", "b"): 5.0}, 0.5, "BINARY")
    assert from_bqm(bqm).energy([1, 0]) == 1.5
    assert from_bqm(bqm, variable_order=["b", "a"]).energy([1, 0]) == 2.5
    shuffled = dimod.BQM({1: 1.0, 0: 2.0}, {}, 0.0, "BINARY")
    assert from_bqm(shuffled).energy([1, 0]) == 2.0
    with pytest.raises(ProblemError, match="variable_order"):
        from_bqm(bqm, variable_order=["a", "c"])


def test_spin_model_by_hand():
    # -s0 s1 with s = +1 for x = 1
    p = from_bqm(dimod.BQM({}, {(0, 1): -1.0}, "SPIN"))
    assert [p.energy(x) for x in ([0, 0], [0, 1], [1, 1])] == [-1.0, 1.0, -1.0]


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_cqm_and_pyomo_round_trips(brute, kind, seed):
    p = brute.random(kind, seed, factored=seed % 3 == 0)
    cqm = to_cqm(p)
    for x in brute.all(p.n):
        sample = dict(enumerate(x.tolist()))
        assert cqm.objective.energy(sample) == pytest.approx(p.energy(x), abs=1e-9)
        assert cqm.check_feasible(sample) == (p.violation(x) == 0)
    same(brute, p, from_cqm(cqm))
    same(brute, p, from_pyomo(to_pyomo(p)))


def test_types_survive(brute):
    for kind in KINDS:
        p = brute.random(kind, 3, n=5)
        assert type(from_cqm(to_cqm(p))) is type(p)
        assert type(from_pyomo(to_pyomo(p))) is type(p)


def test_a_dimod_solver_solves_the_penalty_form(brute):
    p = brute.random("cardinality", 5, n=6)
    form = to_penalty_qubo(p)
    sample = dimod.ExactSolver().sample(to_bqm(form.qubo)).first.sample
    x = form.extract([sample[i] for i in range(form.n_extended)])
    assert p.energy(x) == pytest.approx(brute.minimum(p)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_highs_solves_the_linearised_pyomo_model(brute, kind):
    p = brute.random(kind, 11, n=5)
    for method in ("fortet", "glover"):
        model = to_pyomo(p, linearised=True, method=method)
        pyo.SolverFactory("appsi_highs").solve(model)
        assert pyo.value(model.objective) == pytest.approx(brute.minimum(p)[0], abs=1e-6)


@pytest.mark.skipif(
    not pyo.SolverFactory("scip_direct").available(exception_flag=False), reason="needs pyscipopt"
)
def test_scip_solves_quadratic_and_mixed_models(brute):
    p = brute.random("groups", 2, n=6)
    model = to_pyomo(p)
    pyo.SolverFactory("scip_direct").solve(model)
    assert pyo.value(model.objective) == pytest.approx(brute.minimum(p)[0], abs=1e-6)
    m = small_miqp(M=0.4)
    model = to_pyomo(m)
    pyo.SolverFactory("scip_direct").solve(model)
    assert pyo.value(model.objective) == pytest.approx(brute.minimum(m)[0], abs=1e-5)


def test_miqp_pyomo_objective_by_hand():
    m = small_miqp()
    model = to_pyomo(m)
    w = [0.5, 0.0, -1.0, 0.25]
    for i in range(4):
        model.w[i].set_value(w[i])
        model.x[i].set_value(1)
    assert pyo.value(model.objective) == pytest.approx(m.energy_of(w))
    assert pyo.value(model.gate_up[2].body - model.gate_up[2].upper) == pytest.approx(-1.0 - 2.0)


def test_miqp_cqm_only_without_products():
    with pytest.raises(ProblemError, match="no products of real variables"):
        to_cqm(small_miqp())
    cqm = to_cqm(MIQP(np.zeros((2, 2)), [1.0, 2.0], k=1, M=3.0))
    assert cqm.check_feasible({0: 0, 1: 1, "w0": 0.0, "w1": 3.0})
    assert not cqm.check_feasible({0: 1, 1: 0, "w0": 0.0, "w1": 3.0})
    assert cqm.objective.energy({0: 0, 1: 1, "w0": 0.0, "w1": 3.0}) == -6.0


@pytest.mark.parametrize("call", [to_cqm, to_pyomo])
def test_infinite_bounds_are_refused(call):
    with pytest.raises(ProblemError, match="M must be finite"):
        call(MIQP(np.zeros((2, 2)), [1.0, 2.0], k=1))


def test_a_bqm_has_no_constraints():
    with pytest.raises(ProblemError, match="to_penalty_qubo"):
        to_bqm(CardinalityQP(np.eye(2), k=1))


def cqm_with(change):
    cqm = dimod.ConstrainedQuadraticModel()
    x, y = dimod.Binaries(["x", "y"])
    cqm.set_objective(x * y)
    change(cqm, x, y)
    return cqm


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, x, y: m.add_constraint(x * y <= 0, label="q"), "'q' is quadratic"),
        (lambda m, x, y: m.add_constraint(x + y <= 1, weight=2.0, label="s"), "'s' is soft"),
        (lambda m, x, y: m.add_variable("INTEGER", "i"), "'i' is INTEGER"),
    ],
)
def test_models_that_are_not_ours(change, message):
    with pytest.raises(ProblemError, match=message):
        from_cqm(cqm_with(change))


def test_a_foreign_pyomo_model():
    m = pyo.ConcreteModel()
    m.a = pyo.Var(domain=pyo.Binary)
    m.b = pyo.Var(domain=pyo.Integers, bounds=(0, 1))
    m.c = pyo.Var(domain=pyo.Binary)
    m.c.fix(1)
    m.o = pyo.Objective(expr=(m.a + 2 * m.b + m.c) ** 2, sense=pyo.maximize)
    m.r = pyo.Constraint(expr=m.a + m.b + m.c <= 2)
    p = from_pyomo(m)
    assert p.n == 2
    assert p.energy([1, 1]) == -16
    assert p.violation([1, 1]) == 1
    assert p.violation([1, 0]) == 0


def add_logic(m):
    m.y = pyo.BooleanVar([0, 1])
    m.y[0].associate_binary_var(m.a)
    m.y[1].associate_binary_var(m.b)
    m.l = pyo.LogicalConstraint(expr=pyo.lnot(pyo.land(m.y[0], m.y[1])))


def foreign():
    m = pyo.ConcreteModel()
    m.x = pyo.Var(domain=pyo.Binary)
    return m


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: setattr(m, "r", pyo.Var(domain=pyo.Reals)), "r is not binary"),
        (lambda m: setattr(m, "p", pyo.Objective(expr=m.a)), "it has 2"),
        (lambda m: m.o.deactivate(), "it has 0"),
        (lambda m: setattr(m, "c", pyo.Constraint(expr=m.a * m.b <= 0)), "c is not linear"),
        (lambda m: m.o.set_value(m.a * m.b * m.a * m.b), "degree <= 2"),
        (lambda m: setattr(m, "s", pyo.SOSConstraint(var=m.z, sos=1)), "s is a SOSConstraint"),
        (add_logic, "l is a LogicalConstraint"),
        (lambda m: setattr(m, "d", gdp.Disjunct()), "d is a Disjunct"),
        (lambda m: m.a.setub(0), r"bounds are \(0, 0\)"),
        (lambda m: m.a.setlb(1), r"bounds are \(1, 1\)"),
        (lambda m: m.k.deactivate(), r"k\.x belongs to a deactivated block"),
        (lambda m: setattr(m, "c", pyo.Constraint(expr=foreign().x <= m.a)), "another model"),
        (lambda m: m.a.fix(None), "a is fixed, but has no value"),
    ],
)
def test_pyomo_models_that_are_refused(change, message):
    m = pyo.ConcreteModel()
    m.a = pyo.Var(domain=pyo.Binary)
    m.b = pyo.Var(domain=pyo.Binary)
    m.k = pyo.Block()
    m.k.x = pyo.Var(domain=pyo.Binary)
    m.z = pyo.Var([0, 1], domain=pyo.Binary)
    m.o = pyo.Objective(expr=m.a + m.b + m.k.x)
    assert from_pyomo(m).n == 5
    change(m)
    with pytest.raises(ProblemError, match=message):
        from_pyomo(m)


def test_linearised_models_are_not_read_back():
    with pytest.raises(ProblemError, match="not binary"):
        from_pyomo(to_pyomo(QUBO([[0, 1], [1, 0]]), linearised=True))
    with pytest.raises(ProblemError, match="linearised=False"):
        to_pyomo(small_miqp(), linearised=True)


def test_inactive_components_and_suffixes_do_not_matter():
    m = pyo.ConcreteModel()
    m.a = pyo.Var([0, 1], domain=pyo.Binary)
    m.o = pyo.Objective(expr=m.a[0] - m.a[1])
    m.s = pyo.SOSConstraint(var=m.a, sos=1)
    m.s.deactivate()
    m.t = pyo.SOSConstraint([1], var=m.a, sos=1, index={1: [0, 1]})
    m.t[1].deactivate()
    m.dual = pyo.Suffix(direction=pyo.Suffix.IMPORT)
    m.e = pyo.Expression(expr=m.a[0])
    m.k = pyo.Block()
    m.k.s = pyo.SOSConstraint(var=m.a, sos=1)
    m.k.deactivate()
    assert isinstance(from_pyomo(m), QUBO)
    m.k.activate()
    with pytest.raises(ProblemError, match=r"k\.s is a SOSConstraint"):
        from_pyomo(m)
