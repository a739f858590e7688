"""Gurobi by Pyomo, where gurobipy is installed: Pyomo's direct plugin drops the time limit."""

from __future__ import annotations

import time

import numpy as np
import pytest

from optiprune import solvers
from optiprune.problems import CardinalityQP
from optiprune.solvers import Status, TimeLimit
from optiprune.solvers.adapters.pyomo_backends import backend_of


def test_its_own_option_carries_the_time_limit() -> None:
    assert backend_of("gurobi_direct").seconds == "TimeLimit"
    assert backend_of("scip").seconds is None  # Pyomo passes it on


def test_time_limit_and_optimum() -> None:
    pytest.importorskip("gurobipy")
    gurobi = solvers.get("pyomo", solver="gurobi_direct")
    A = np.random.default_rng(0).normal(size=(60, 60))
    hard = CardinalityQP(A @ A.T, k=30)
    began = time.perf_counter()
    stopped = gurobi.solve(hard, stop=TimeLimit(1.0))
    assert time.perf_counter() - began < 5.0
    assert stopped.status is Status.FEASIBLE
    assert stopped.bound is not None
    easy = CardinalityQP(A[:12, :12] @ A[:12, :12].T, k=6)
    best = solvers.get("exhaustive").solve(easy).energy
    assert gurobi.solve(easy).energy == pytest.approx(best)
