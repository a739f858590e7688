"""The global search: what a batch can exchange, where it ends, what the trial run finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from optiprune import Config, optimize_masks
from optiprune.curvature import CalibrationError, CalibrationSet, find_layers
from optiprune.engine import RunInterruptedError, StepFailedError
from optiprune.engine.initial import first_scores
from optiprune.engine.state import WeightState
from optiprune.problems import CardinalityQP
from optiprune.solvers import (
    Capabilities,
    Solution,
    SolveStats,
    Status,
    UnsupportedProblemError,
    get,
)

BASE: dict[str, Any] = {
    "threads": 1,
    "prune": {"objective": "global", "refit": False, "sparsity": 0.5},
    "batches": {"size": 64, "steps": 4},
    "curvature": {"samples": 100, "gradient_samples": 100},
}


@dataclass
class Watching:
    """Greedy, and what happens from the outside: free shares, interrupts, size limits."""

    name: str = "watching"
    capabilities: Capabilities = Capabilities(frozenset({CardinalityQP}))  # noqa: RUF009
    good: int = 10**9
    fault: str = ""
    free: list[float] = field(default_factory=list)

    def solve(self, problem: Any, *, x0: Any = None, seed: Any = 0, stop: Any = None) -> Solution:
        kept = np.bincount(problem.groups, weights=x0)
        sizes = np.bincount(problem.groups)
        self.free.append(float(((kept > 0) & (kept < sizes))[problem.groups].mean()))
        if len(self.free) > self.good:
            if self.fault == "interrupted":
                x = np.asarray(x0, dtype=np.int8)
                stats = SolveStats(self.name, stop_reason="interrupted")
                return Solution(x, problem.energy(x), None, Status.FEASIBLE, stats)
            if self.fault == "ctrl-c":
                raise KeyboardInterrupt
            raise RuntimeError("out of luck")
        return get("greedy").solve(problem, x0=x0)


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 4)
    )
    return model.to(dtype)


def pairs(n: int = 200, dtype: torch.dtype = torch.float32) -> list[tuple[Tensor, Tensor]]:
    x = torch.randn(n, 16, generator=torch.Generator().manual_seed(1)).to(dtype)
    return [(x, x[:, :4].argmax(1))]


def run(model: nn.Module | None = None, data: Any = None, **options: Any) -> Any:
    config = Config.from_table(BASE).replace(**options.pop("config", {}))
    data = pairs() if data is None else data
    return optimize_masks(model or network(), data, config=config, **options)


@pytest.mark.parametrize("kept", [0.3, 0.5])
@pytest.mark.parametrize("prune", [{"pattern": "2:4"}, {"pattern": "1:4"}, {"scope": "row"}])
def test_a_batch_has_no_weight_that_cannot_move(prune: dict[str, Any], kept: float) -> None:
    solver = Watching()
    run(config={"prune": prune, "batches": {"kept": kept}}, solver=solver)
    assert len(solver.free) == 4
    assert min(solver.free) == 1.0


def test_layers_with_nothing_to_exchange_are_passed_over() -> None:
    result = run(config={"batches": {"across": "layer"}, "layers": {"sparsity": {"2": 0.0}}})
    assert [r.layers for r in result.history] == [("0",), ("4",), ("4",), ("0",)]
    assert result.report.notes == ()


def test_an_early_end_is_noted() -> None:
    nothing = run(config={"layers": {"sparsity": {"*": 0.0}}})
    assert nothing.report.notes == (
        "stage 0 ended after 0 of 4 steps: no budget has both a kept and a pruned weight to "
        "exchange",
    )
    stuck = run(config={"batches": {"patience": 1, "steps": 200}})
    (note,) = stuck.report.notes
    assert note.startswith(f"stage 0 ended after {len(stuck.history)} of 200 steps: the last 1 ")


def test_options_of_the_other_objective_are_noted() -> None:
    result = run(objective="reconstruction", config={"batches": {"tabu": 0.2}})
    assert (
        "no effect with objective = 'reconstruction': batches.steps, batches.tabu, "
        "curvature.samples, curvature.gradient_samples" in result.report.notes
    )


@pytest.mark.parametrize("fault", ["interrupted", "ctrl-c"])
@pytest.mark.parametrize("objective", ["global", "reconstruction"])
def test_ctrl_c_ends_the_run_and_keeps_what_was_reached(fault: str, objective: str) -> None:
    model = network()
    dense = {k: v.clone() for k, v in model.state_dict().items()}
    # the first layer has 32 rows: the interrupt comes in the second
    solver = Watching(good=2 if objective == "global" else 35, fault=fault)
    with pytest.raises(RunInterruptedError, match="interrupted after") as caught:
        run(model, objective=objective, refit=objective != "global", solver=solver)
    assert isinstance(caught.value, KeyboardInterrupt)
    assert len(solver.free) == solver.good + 1
    partial = caught.value.partial
    assert len(partial.history) == (2 if objective == "global" else 1)
    assert partial.density == pytest.approx(0.5, abs=0.01)
    assert all(torch.equal(v, dense[k]) for k, v in model.state_dict().items())


def test_ctrl_c_before_the_first_step_has_no_result() -> None:
    with pytest.raises(RunInterruptedError) as caught:
        run(solver=Watching(good=0, fault="interrupted"))
    assert caught.value.partial is None


def test_a_failed_reconstruction_keeps_the_layers_that_were_refitted() -> None:
    with pytest.raises(StepFailedError) as caught:
        run(objective="reconstruction", refit=True, solver=Watching(good=35))
    masks = caught.value.partial.masks
    assert list(masks.fitted) == ["0.weight"]
    kept = masks["0.weight"]
    assert not torch.equal(masks.fitted["0.weight"][kept], network()[0].weight[kept])


@pytest.mark.parametrize("objective", ["global", "reconstruction"])
def test_a_size_limit_is_found_before_the_first_step(objective: str) -> None:
    caps = Capabilities(frozenset({CardinalityQP}), max_n=20)
    solver = Watching(capabilities=caps)
    # rows have up to 32 weights, the model 800
    n = 64 if objective == "global" else 32
    match = f"takes at most 20 variables and batches have {n}; set batches.size = 20"
    with pytest.raises(UnsupportedProblemError, match=match):
        run(objective=objective, solver=solver)
    assert solver.free == []
    run(objective=objective, solver=solver, config={"batches": {"size": 20}})
    assert solver.free


@pytest.mark.parametrize("objective", ["global", "reconstruction"])
def test_a_layer_of_its_own_sparsity_is_free_of_the_pattern(objective: str) -> None:
    table = {"layers": {"sparsity": {"2": 0.0, "4": 0.25}}}
    for refit in (False, True):
        masks = run(objective=objective, pattern="2:4", refit=refit, config=table).masks
        assert (masks["0.weight"].reshape(-1, 4).sum(1) == 2).all()
        assert masks["2.weight"].all()
        assert int(masks["4.weight"].sum()) == 24


@pytest.mark.parametrize("refit", [False, True])
def test_auto_starts_a_reconstruction_from_wanda(refit: bool) -> None:
    model, train = network(), CalibrationSet.collect(pairs(), torch.device("cpu"))
    state = WeightState(model, find_layers(model))

    def scores(method: str, objective: str = "reconstruction") -> np.ndarray:
        prune = {"objective": objective, "refit": refit}
        config = Config.from_table({"initial": {"method": method}, "prune": prune})
        return first_scores(model, state, train, config, None, np.random.SeedSequence(0))

    assert np.array_equal(scores("auto"), scores("wanda"))
    assert np.array_equal(scores("auto", "global"), scores("magnitude"))
    assert not np.array_equal(scores("wanda"), scores("magnitude"))


def test_values_of_a_double_model_keep_their_digits() -> None:
    model = network(torch.float64)
    dense = [p.detach().clone() for p in model.parameters()]
    result = run(model, pairs(dtype=torch.float64), refit=True, config={"accept": {"holdout": 0.5}})
    for p, w in zip(model.parameters(), dense, strict=True):
        name = next(n for n, q in model.named_parameters() if q is p)
        if name in result.masks and name not in result.masks.fitted:
            kept = result.masks[name]
            assert torch.equal(p[kept], w[kept])
    state = WeightState(model, find_layers(model))
    state.set_values({"4.weight": state.dense_weights()["4.weight"] * (1 + 1e-12)})
    assert not torch.equal(state.weights()["4.weight"], state.dense_weights()["4.weight"])
    assert list(state.fitted_weights()) == ["4.weight"]


# ---- what the trial run finds


X, Y = pairs()[0]


@pytest.mark.parametrize(
    ("data", "holdout", "match"),
    [
        ((X, Y), None, r"put it in a list: \[\(inputs, targets\)\]"),
        ([(X, Y)], [X], "the held-out data have no targets where the calibration data do"),
        ([X], [(X, Y)], "the calibration data have no targets where the held-out data do"),
        ([(X, Y + 1)], None, r"raised IndexError on inputs of \(\d+, 16\) float32 and targets of"),
        ([(X[:, :9], Y)], None, r"raised RuntimeError on inputs of \(\d+, 9\) float32"),
        ([(X, Y)], [(X[:, :9], Y)], r"raised RuntimeError on inputs of \(\d+, 9\) float32"),
        ([(X.double(), Y)], None, r"raised RuntimeError on inputs of \(\d+, 16\) float64"),
    ],
)
def test_data_that_do_not_fit_the_model_are_named(data: Any, holdout: Any, match: str) -> None:
    with pytest.raises(CalibrationError, match=match):
        run(data=data, holdout=holdout)


def test_data_that_do_not_fit_are_named_without_labels_too() -> None:
    with pytest.raises(CalibrationError, match="raised RuntimeError"):
        run(data=[X[:, :9]], objective="reconstruction")


def test_inference_mode_is_named() -> None:
    with torch.inference_mode(), pytest.raises(CalibrationError, match="inference_mode"):
        run()
    with torch.inference_mode():
        model = network()
    with pytest.raises(CalibrationError, match="inference_mode"):
        run(model)
    with torch.no_grad():
        run()


class Idle(nn.Module):
    """Uses the weight of a layer that it never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.linear(self.a(x).relu(), self.b.weight)


def test_a_layer_that_is_never_called_is_named_before_the_search() -> None:
    solver = Watching()
    with pytest.raises(CalibrationError, match="'b'"):
        run(Idle(), refit=True, solver=solver)
    assert solver.free == []
