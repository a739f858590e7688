"""The search after the refit: what it may change, and that it is undone where it does not help."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from optiprune import Config, optimize_masks
from optiprune.engine import StepFailedError
from optiprune.solvers import get

CONFIG = {
    "threads": 1,
    "prune": {"objective": "global", "refit": True},
    "batches": {"size": 256, "steps": 8},
    "curvature": {"samples": 400, "gradient_samples": 800},
    "solver": {"name": "annealing", "sweeps": 4},
}


def prune(digits: Any, steps: int, sparsity: float = 0.9, **sections: Any) -> tuple[Any, Any]:
    model = digits.model()
    config = Config.from_table({**CONFIG, "refit": {"steps": steps}}).replace(**sections)
    return model, optimize_masks(model, [digits.train], sparsity=sparsity, config=config)


@pytest.mark.parametrize("sparsity", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_held_out_loss_is_never_above_that_of_one_refit(
    digits: Any, sparsity: float, seed: int
) -> None:
    _, once = prune(digits, 0, sparsity, seed=seed)
    model, twice = prune(digits, 6, sparsity, seed=seed)
    # the first search is the same
    first = [r for r in twice.history if r.stage == 0]
    assert [r.objective for r in first] == [r.objective for r in once.history]
    assert twice.report.loss_masked == once.report.loss_masked
    assert twice.report.loss_final <= once.report.loss_final
    again = [r for r in twice.history if r.stage == 1]
    assert 0 < len(again) <= 6
    assert [r.step for r in twice.history] == list(range(len(twice.history)))
    changed = any(r.accepted and r.changed for r in again)
    undone = any("was undone: held-out loss" in n for n in twice.report.notes)
    assert (twice.masks != once.masks) == (changed and not undone)
    assert (twice.report.loss_final < once.report.loss_final) == (changed and not undone)
    assert twice.density == once.density
    # what is reported is the model that comes out
    for name, mask in twice.masks.items():
        weight = dict(model.named_parameters())[name]
        assert (weight[~mask] == 0).all()
        assert torch.equal(weight, twice.masks.fitted[name])


def test_it_helps_where_few_weights_are_left(digits: Any) -> None:
    _, once = prune(digits, 0, 0.95)
    _, twice = prune(digits, 10, 0.95)
    assert twice.report.loss_final < 0.97 * once.report.loss_final


class Fickle:
    """Annealing for the first search, then a random choice, worse than the start that it is given.

    Not a `BaseSolver`, which would give the start back.
    """

    name = "fickle"

    def __init__(self, honest: int) -> None:
        self.honest, self.calls = honest, 0
        self.annealing = get("annealing", sweeps=4)
        self.capabilities = self.annealing.capabilities

    def solve(self, problem: Any, *, x0: Any = None, seed: Any = 0, stop: Any = None) -> Any:
        self.calls += 1
        found = self.annealing.solve(problem, x0=x0, seed=seed, stop=stop)
        if self.calls <= self.honest:
            return found
        x = np.random.default_rng(self.calls).permutation(x0)
        return dataclasses.replace(found, x=x, energy=problem.energy(x), bound=None)

    def solve_many(self, problems: Any, **options: Any) -> Any:
        raise NotImplementedError


def test_what_did_not_help_is_undone(digits: Any) -> None:
    results = []
    for steps in (0, 12):
        config = Config.from_table(
            {**CONFIG, "refit": {"steps": steps}, "accept": {"tolerance": 100.0}}
        )
        results.append(
            optimize_masks(
                digits.model(), [digits.train], sparsity=0.9, config=config, solver=Fickle(8)
            )
        )
    once, twice = results
    assert any("was undone: held-out loss" in n for n in twice.report.notes)
    assert twice.masks == once.masks
    assert all(torch.equal(twice.masks.fitted[n], v) for n, v in once.masks.fitted.items())
    assert twice.report.layers == once.report.layers
    assert twice.report.loss_final == once.report.loss_final


def test_no_search_means_none_after_the_refit(digits: Any) -> None:
    _, result = prune(digits, 10, batches={"steps": 0})
    assert result.history == ()


def test_a_failure_after_the_refit_keeps_its_values(
    digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(get("annealing"))
    original, calls = kind._solve, []

    def breaks(self: Any, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 10:
            raise RuntimeError("licence server unreachable")
        return original(self, *arguments)

    monkeypatch.setattr(kind, "_solve", breaks)
    with pytest.raises(StepFailedError) as caught:
        prune(digits, 6)
    partial = caught.value.partial
    assert [r.stage for r in partial.history] == [0] * 8 + [1]
    assert set(partial.masks.fitted) == {"0.weight", "2.weight"}
    model = digits.model()
    partial.masks.apply(model)
    assert digits.accuracy(model) > 0.8
