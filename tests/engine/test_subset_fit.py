"""Masks and values together on the Fisher model of a small network."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from optiprune import Config, optimize_masks
from optiprune.engine import StepFailedError
from optiprune.fisher_subset import FisherSubset
from optiprune.solvers import UnsupportedProblemError

BASE: dict[str, Any] = {
    "threads": 1,
    "prune": {"objective": "global", "refit": True, "sparsity": 0.8},
    "batches": {"size": 64, "steps": 2},
    "curvature": {"samples": 100, "gradient_samples": 300},
    "refit": {"steps": 0},
    "tune": {"epochs": 0},
    "subset": {"rounds": 6, "samples": 120, "size": 24, "exchanges": 6},
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 24), nn.ReLU(), nn.Linear(24, 4)
    )


def pairs(n: int = 400) -> list[tuple[Tensor, Tensor]]:
    x = torch.randn(n, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    return [(x, x.flatten(1)[:, :4].argmax(1))]


def run(model: nn.Module | None = None, **config: Any) -> Any:
    model = network() if model is None else model
    made = Config.from_table(BASE).replace(**config)
    return optimize_masks(model, pairs(), config=made, loss="kl")


def fits(result: Any) -> list[Any]:
    """Records of the rounds: every kept weight is a candidate."""
    return [r for r in result.history if r.size > 64]


def test_rounds_lower_the_held_out_loss_below_that_of_layers_alone() -> None:
    without, fitted = run(subset={"rounds": 0}), run()
    assert not fits(without)
    assert fitted.report.loss_final < 0.9 * without.report.loss_final
    rounds = fits(fitted)
    assert any(r.accepted and r.changed for r in rounds)
    for r in rounds:
        assert r.predicted <= 1e-6
        assert r.accepted == (r.actual <= 0)
    accepted = [r.objective for r in rounds if r.accepted]
    # of one stage after the other, the refit of the layers in between
    assert accepted[-1] <= accepted[0]


def test_the_budget_holds_and_pruned_weights_are_zero() -> None:
    model = network()
    result = run(model)
    assert result.report.density == pytest.approx(0.2, abs=1e-3)
    for name, keep in result.masks.items():
        assert not model.get_parameter(name)[~keep].any()


@pytest.mark.parametrize("scope", ["layer", "row"])
def test_every_budget_keeps_its_count(scope: str) -> None:
    result = run(prune={"scope": scope})
    for keep in result.masks.values():
        rows = keep.reshape(len(keep), -1)
        if scope == "row":
            assert (rows.sum(1) == round(0.2 * rows.shape[1])).all()
        assert int(keep.sum()) == pytest.approx(0.2 * keep.numel(), abs=len(keep))


def test_stages_end_at_the_target_and_the_same_seed_gives_the_same_weights() -> None:
    schedule = {"kind": "geometric", "stages": 3}
    first, second = network(), network()
    a, b = run(first, schedule=schedule), run(second, schedule=schedule)
    assert a.report.density == pytest.approx(0.2, abs=1e-3)
    assert {r.stage for r in fits(a)} == {0, 1, 2, 3}
    for x, y in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(x, y)
    assert a.masks == b.masks


def test_without_held_out_data_the_calibration_data_judge() -> None:
    result = run(accept={"holdout": 0.0})
    assert any(r.accepted for r in fits(result))
    assert all(r.actual is None and r.objective is None for r in fits(result))
    model, other = network(), network()
    run(model, accept={"holdout": 0.0})
    run(other, accept={"holdout": 0.0}, subset={"rounds": 0})
    x = pairs()[0][0]

    @torch.no_grad()
    def divergence(m: nn.Module) -> float:
        dense = network()(x).softmax(1)
        return float((dense * (dense.log() - m(x).log_softmax(1))).sum(1).mean())

    assert divergence(model) < divergence(other)


@pytest.mark.parametrize("size", [50.0, 1e30])
def test_a_proposal_that_is_worse_leaves_the_weights_alone(size: float) -> None:
    def bad(self: FisherSubset) -> Any:
        return np.where(self.support, size, 0.0)

    model, other = network(), network()
    with mock.patch.object(FisherSubset, "values", bad):
        result = run(model)
    assert not any(r.accepted for r in fits(result))
    ridges = [r.ridge for r in fits(result)][:4]
    assert ridges == pytest.approx([1e-3 * 4**i for i in range(4)])
    run(other, subset={"rounds": 0})
    for x, y in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(x, y)


def test_solvers_without_best_subsets_are_named_before_any_work() -> None:
    with pytest.raises(UnsupportedProblemError, match=r"subset\.rounds = 6"):
        run(solver={"name": "annealing"})


def test_a_solver_that_fails_leaves_the_result_so_far() -> None:
    with (
        mock.patch("optiprune.engine.global_loss.solve_checked", side_effect=RuntimeError("no")),
        pytest.raises(StepFailedError, match="failed: no") as caught,
    ):
        run(batches={"steps": 0})  # the first problem is a round's
    assert caught.value.partial is not None
