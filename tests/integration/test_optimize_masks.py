"""optimize_masks on a trained network: what it gains, what it refuses, what it leaves alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from optiprune import Config, optimize_masks
from optiprune.config import ConfigError
from optiprune.curvature import CalibrationError, LayerError
from optiprune.engine import BudgetError, StepFailedError
from optiprune.problems import QUBO, CardinalityQP
from optiprune.solvers import Capabilities, Solution, UnsupportedProblemError, get

FAST = {
    "threads": 1,
    "batches": {"size": 256, "steps": 12},
    "curvature": {"samples": 400, "gradient_samples": 800},
    "solver": {"name": "annealing", "sweeps": 4},
}


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


def prune(digits: Any, **options: Any) -> tuple[nn.Module, Any]:
    model = digits.model()
    config = Config.from_table(FAST).replace(**options.pop("config", {}))
    options = {"sparsity": 0.9, "objective": "global", "refit": False, **options}
    return model, optimize_masks(model, [digits.train], config=config, **options)


def test_global_search_beats_magnitude_and_refit_beats_mask_only(digits: Any) -> None:
    magnitude, _ = prune(digits, config={"batches": {"steps": 0}})
    ours, result = prune(digits)
    refit, again = prune(digits, refit=True)
    assert digits.loss(ours) < 0.6 * digits.loss(magnitude)
    assert digits.loss(refit) < digits.loss(ours)
    for model, r in ((ours, result), (refit, again)):
        kept = sum(int((m.weight != 0).sum()) for m in model if isinstance(m, nn.Linear))
        assert r.masks.count() == round(0.1 * 4736) >= kept
        assert r.density == pytest.approx(0.1, abs=1e-4)


def test_predicted_and_actual_change_are_recorded(digits: Any) -> None:
    _, result = prune(digits)
    first = result.history[0]
    assert first.predicted < 0
    assert first.actual < 0
    losses = [result.report.loss_initial, *(r.objective for r in result.history)]
    assert all(b <= a + 1e-12 for a, b in pairwise(losses))
    for before, r in zip(losses, result.history, strict=False):
        if r.accepted:
            assert r.objective == pytest.approx(before + r.actual, abs=1e-9)
        else:
            assert r.objective == before
    assert result.report.loss_masked == pytest.approx(losses[-1])


def test_revert_gives_the_dense_model_back(digits: Any) -> None:
    model, result = prune(digits, refit=True)
    assert not same(snapshot(model), snapshot(digits.model()))
    result.revert()
    assert same(snapshot(model), snapshot(digits.model()))


def test_same_seed_same_masks_whatever_the_workers(digits: Any) -> None:
    for objective in ("global", "reconstruction"):
        masks = [
            prune(digits, objective=objective, seed=3, config={"workers": w})[1].masks
            for w in (1, 2)
        ]
        assert masks[0] == masks[1]
    other = prune(digits, seed=4)[1].masks
    assert other != prune(digits, seed=3)[1].masks


@pytest.mark.parametrize("objective", ["global", "reconstruction"])
@pytest.mark.parametrize("refit", [True, False])
def test_n_to_m_pattern_holds(digits: Any, objective: str, refit: bool) -> None:
    model, result = prune(digits, objective=objective, refit=refit, pattern="2:4")
    for name, mask in result.masks.items():
        assert (mask.reshape(-1, 4).sum(1) == 2).all(), name
    assert digits.accuracy(model) > 0.9


def test_reconstruction_lowers_every_layer_error(digits: Any) -> None:
    _, result = prune(digits, objective="reconstruction", sparsity=0.5, refit=True)
    for row in result.report.layers:
        assert row.error_refit < row.error_masked < row.error_initial


@pytest.mark.parametrize("schedule", ["cubic", "geometric"])
@pytest.mark.parametrize("method", ["wanda", "gradient", "random", "magnitude"])
def test_schedules_and_first_masks_reach_the_density(
    digits: Any, schedule: str, method: str
) -> None:
    _, result = prune(
        digits,
        config={
            "schedule": {"kind": schedule, "stages": 3},
            "initial": {"method": method},
            "batches": {"steps": 6},
        },
    )
    assert result.density == pytest.approx(0.1, abs=1e-4)
    assert {r.stage for r in result.history} == {0, 1, 2}
    densities = [r.density for r in result.history]
    assert densities == sorted(densities, reverse=True)


def test_already_sparse_model_keeps_its_zeros_as_a_start(digits: Any) -> None:
    model, first = prune(digits, sparsity=0.8)
    assert first.applied is not None
    again = optimize_masks(
        model,
        [digits.train],
        sparsity=0.8,
        objective="global",
        refit=False,
        config=Config.from_table(FAST).replace(initial={"method": "nonzero"}, batches={"steps": 0}),
    )
    assert again.masks == first.masks


def test_scopes_layers_and_own_sparsities(digits: Any) -> None:
    _, by_row = prune(digits, config={"prune": {"scope": "row"}}, sparsity=0.75)
    assert all((m.sum(1) == 16).all() for m in by_row.masks.values())
    model, one = prune(digits, exclude=["2"])
    assert list(one.masks) == ["0.weight"]
    assert torch.equal(model[2].weight, digits.model()[2].weight)
    _, own = prune(digits, config={"layers": {"sparsity": {"2": 0.5}}})
    assert own.masks["2.weight"].float().mean() == pytest.approx(0.5)


def test_labels_are_not_needed_for_kl_or_reconstruction(digits: Any) -> None:
    for options in ({"objective": "global", "loss": "kl"}, {"objective": "reconstruction"}):
        model = digits.model()
        optimize_masks(
            model,
            [digits.train[0]],
            sparsity=0.7,
            refit=True,
            config=Config.from_table(FAST),
            **options,
        )
        assert digits.accuracy(model) > 0.9


def test_empirical_fisher_layer_batches_partners_and_all_accepted(digits: Any) -> None:
    model, result = prune(
        digits,
        config={
            "curvature": {"fisher": "empirical"},
            "batches": {"across": "layer", "partners": 0.3},
            "accept": {"holdout": 0.0},
        },
    )
    assert all(r.actual is None and r.accepted for r in result.history)
    assert {len(r.layers) for r in result.history} == {1}
    assert digits.accuracy(model) > 0.7


def test_masks_file_gives_the_pruned_model_again(digits: Any, tmp_path: Any) -> None:
    from optiprune import MaskSet

    model, result = prune(digits, refit=True)
    result.masks.save(tmp_path / "m.safetensors", config=result.config)
    fresh = digits.model()
    MaskSet.load(tmp_path / "m.safetensors", fresh).apply(fresh)
    assert same(snapshot(fresh), snapshot(model))


SOLVERS = {
    "annealing": {"name": "annealing"},
    "tabu": {"name": "tabu"},
    "highs": {"name": "highs", "time_limit": 5.0},
    "pyomo + scip": {"name": "pyomo", "solver": "scip", "time_limit": 5.0},
    "dimod": {
        "name": "dimod",
        "sampler": "dwave.samplers:SimulatedAnnealingSampler",
        "reads": 20,
    },
}


def test_swapping_the_solver_is_one_table(digits: Any, tmp_path: Any) -> None:
    """The same prune with five solvers; energies of the first batch are of the same problem."""
    energies = {}
    for name, table in SOLVERS.items():
        _, result = prune(
            digits,
            sparsity=0.8,
            config={"batches": {"size": 20, "steps": 2}, "solver": table},
        )
        assert result.report.solver == table["name"]
        assert result.history[0].size == 20
        energies[name] = result.history[0].predicted
    best = min(energies.values())
    assert best < 0
    for name, energy in energies.items():
        assert energy == pytest.approx(best, rel=0.02), (name, energies)


# ---- bad input: a clear error, and the model exactly as it was


def refused(digits: Any, error: type[Exception], match: str, **options: Any) -> None:
    model = options.pop("model", None) or digits.model()
    data = options.pop("data", [digits.train])
    before = snapshot(model)
    config = Config.from_table(FAST).replace(**options.pop("config", {}))
    options = {"sparsity": 0.9, "objective": "global", "refit": False, **options}
    with pytest.raises(error, match=match):
        optimize_masks(model, data, config=config, **options)
    after = snapshot(model)
    assert all(torch.equal(before[k], after[k]) or before[k].isnan().any() for k in before)


@pytest.mark.parametrize("sparsity", [1.0, -0.1, 2.0, float("nan")])
def test_sparsity_outside_its_range(digits: Any, sparsity: float) -> None:
    refused(digits, ConfigError, "prune.sparsity", sparsity=sparsity)


def test_density_that_rounds_to_nothing(digits: Any) -> None:
    refused(digits, BudgetError, "lower", sparsity=0.9999)
    refused(
        digits,
        BudgetError,
        "layer '2'",
        sparsity=0.5,
        config={"layers": {"sparsity": {"2": 0.9999}}},
    )


def test_a_layer_pattern_that_matches_nothing(digits: Any) -> None:
    for option in ({"sparsity": {"hed": 0.0}}, {"exclude": ["hed"]}, {"include": ["hed"]}):
        refused(digits, LayerError, "hed", sparsity=0.5, config={"layers": option})


def test_infeasible_pattern(digits: Any) -> None:
    refused(digits, BudgetError, "does not fit", pattern="2:7")
    refused(digits, ConfigError, "pattern", pattern="4:2")


@pytest.mark.parametrize("data", [[], iter(()), [torch.zeros(0, 64)]])
def test_no_calibration_data(digits: Any, data: Any) -> None:
    refused(digits, CalibrationError, "no calibration data", data=data)


@pytest.mark.parametrize(
    ("where", "objective"),
    [
        ("weights", "global"),
        ("weights", "reconstruction"),
        ("data", "global"),
        ("data", "reconstruction"),
        ("activations", "global"),
        ("activations", "reconstruction"),
        ("gradients", "global"),
    ],
)
def test_nan_is_named(digits: Any, where: str, objective: str) -> None:
    model = digits.model()
    x, y = (t.clone() for t in digits.train)
    error: type[Exception] = CalibrationError
    loss = None
    if where == "weights":
        error = LayerError
        with torch.no_grad():
            model[2].weight[0, 0] = float("nan")
    elif where == "data":
        x[3, 3] = float("inf")
    elif where == "activations":
        model.insert(1, Exploding())
    else:

        def loss(output: Tensor, target: Tensor) -> Tensor:
            # finite value, infinite slope
            return (output - output.detach()).abs().sqrt().sum()

    refused(
        digits, error, "NaN|nan|inf", model=model, data=[(x, y)], objective=objective, loss=loss
    )


class Exploding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / (x * 0)


def test_batch_on_another_device(digits: Any) -> None:
    x, y = digits.train
    refused(digits, CalibrationError, "batch 0 is on meta", data=[(x.to("meta"), y)])


def test_model_without_prunable_layers(digits: Any) -> None:
    refused(
        digits, LayerError, "no Linear or Conv2d", model=nn.Sequential(nn.ReLU(), nn.LayerNorm(64))
    )
    refused(digits, LayerError, "matches no layer", include=["nowhere*"])
    refused(digits, LayerError, "no layer to prune", exclude=["*"])


def test_labels_missing(digits: Any) -> None:
    refused(digits, CalibrationError, "labels are missing", data=[digits.train[0]])
    refused(
        digits, CalibrationError, "labels are missing", data=[digits.train[0]], loss="cross_entropy"
    )


def test_true_fisher_needs_a_loss_with_a_likelihood(digits: Any) -> None:
    refused(
        digits,
        ConfigError,
        "fisher = 'empirical'",
        loss=lambda o, t: o.square().mean(),
        config={"curvature": {"fisher": "true"}},
    )


def test_unknown_options_are_refused_by_name(digits: Any) -> None:
    with pytest.raises(ConfigError, match=r"batches\.sise'; did you mean 'size'"):
        optimize_masks(digits.model(), [digits.train], config={"batches": {"sise": 3}})
    refused(digits, LookupError, "did you mean 'tabu'", solver="tabo")
    refused(digits, ValueError, "no option 'sweps'", solver={"name": "annealing", "sweps": 3})


@dataclass(frozen=True)
class Faulty:
    """Right for ``good`` solves, then wrong in one way."""

    fault: str
    good: int
    calls: list[int]
    name: str = "faulty"
    capabilities: Capabilities = Capabilities(frozenset({CardinalityQP}))  # noqa: RUF009

    def solve(self, problem: Any, *, x0: Any = None, seed: Any = 0, stop: Any = None) -> Solution:
        solution = get("greedy").solve(problem, x0=x0)
        self.calls.append(1)
        if len(self.calls) <= self.good:
            return solution
        assert solution.x is not None
        if self.fault == "raises":
            raise RuntimeError("out of luck")
        if self.fault == "length":
            return replace(solution, x=solution.x[:-1])
        if self.fault == "infeasible":
            return replace(solution, x=np.ones_like(solution.x))
        if self.fault == "energy":
            return replace(solution, energy=solution.energy - 1.0)
        return None  # type: ignore[return-value]


@pytest.mark.parametrize("fault", ["raises", "length", "infeasible", "energy", "nothing"])
@pytest.mark.parametrize("objective", ["global", "reconstruction"])
def test_faulty_solver_costs_neither_model_nor_result(
    digits: Any, fault: str, objective: str
) -> None:
    model = digits.model()
    good = 3 if objective == "global" else 20
    with pytest.raises(StepFailedError, match="faulty") as caught:
        optimize_masks(
            model,
            [digits.train],
            sparsity=0.9,
            objective=objective,
            refit=False,
            config=Config.from_table(FAST),
            solver=Faulty(fault, good, []),
        )
    assert same(snapshot(model), snapshot(digits.model()))
    partial = caught.value.partial
    assert len(partial.history) == (3 if objective == "global" else 0)
    assert partial.density == pytest.approx(0.1, abs=0.01)
    before = digits.loss(model)
    with partial.masks.apply(model):
        assert digits.loss(model) != before
    assert same(snapshot(model), snapshot(digits.model()))


def test_solver_that_does_not_take_the_problem(digits: Any) -> None:
    qubo_only = Faulty("raises", 0, [], capabilities=Capabilities(frozenset({QUBO})))
    refused(digits, UnsupportedProblemError, "to_penalty_qubo", solver=qubo_only)
