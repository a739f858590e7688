"""What a record keeps of a solver's incumbents."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from optiprune import optimize_masks
from optiprune.engine.records import StepRecord
from optiprune.engine.solving import POINTS, trajectory_of
from optiprune.solvers import Solution, SolveStats, Status


def solution(told: Any) -> Solution:
    stats = SolveStats(solver="own", wall_s=2.0, trajectory=told)
    return Solution(x=None, energy=-3.0, bound=None, status=Status.FEASIBLE, stats=stats)


def test_at_most_so_many_are_kept_and_the_last_is_the_answer() -> None:
    told = tuple((i / 100, -i / 100) for i in range(1, 200))
    kept = trajectory_of(solution(told), -3.0)
    assert len(kept) == POINTS
    assert kept[-1] == (2.0, -3.0)


@pytest.mark.parametrize("told", [(), ("ab",), ((1.0,),), 5, ((None, 1.0),), ((10**400, 1.0),)])
def test_a_solver_that_tells_something_else_costs_no_step(told: Any) -> None:
    assert trajectory_of(solution(told), -3.0) == ()


@pytest.mark.parametrize(
    "prune",
    [
        {"objective": "global", "loss": "kl"},
        {"objective": "reconstruction", "refit": False},
        {"objective": "reconstruction"},
    ],
)
def test_steps_have_the_incumbents_of_their_solvers(prune: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 40), nn.ReLU(), nn.Linear(40, 6)).eval()
    data = [torch.randn(200, 24) @ torch.randn(24, 24)]
    config = {"threads": 1, "prune": prune, "batches": {"size": 64, "steps": 4}}
    result = optimize_masks(model, data, config=config, sparsity=0.5)
    told = [r for r in result.history if r.trajectory]
    assert told
    for r in told:
        times, energies = zip(*r.trajectory, strict=True)
        assert list(times) == sorted(times)
        assert list(energies) == sorted(energies, reverse=True)
        assert StepRecord.from_dict(r.as_dict()) == r
        if prune["objective"] == "global":
            assert energies[-1] == r.predicted
        else:
            assert energies[-1] >= r.predicted - 1e-9  # of one of the rows
