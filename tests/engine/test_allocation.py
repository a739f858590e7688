"""Allocation in a run: budgets, notes, what is refused, and that uniform is as it always was."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from optiprune import optimize_masks
from optiprune.api import MaskResult
from optiprune.config import Config, ConfigError
from optiprune.curvature import CalibrationError, find_layers
from optiprune.engine.allocating import first_by_counts
from optiprune.engine.budgets import make_budgets
from optiprune.engine.errors import BudgetError
from optiprune.engine.initial import best_per_group
from optiprune.engine.state import WeightState


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64, 24),
            nn.ReLU(),
            nn.Linear(24, 5),
        )
        # the last layer hardly sees what the first half of its inputs say
        with torch.no_grad():
            model[6].weight[:, :12] *= 0.01
        return model


DATA = torch.randn(120, 1, 8, 8, generator=torch.Generator().manual_seed(3))
LABELS = torch.arange(120) % 5
SIZES = {"0": 36, "4": 1536, "6": 120}
FLOPS = {"0": 36 * 64, "4": 1536, "6": 120}


def prune(allocation: dict[str, Any], *, config: dict | None = None, **given: Any) -> MaskResult:
    options: dict[str, Any] = {
        "sparsity": 0.8,
        "objective": "reconstruction",
        "refit": True,
        "progress": False,
        **given,
    }
    settings = {"threads": 1, "batches": {"steps": 2, "size": 64}, **(config or {})}
    settings["allocation"] = {"levels": 5, **allocation}
    return optimize_masks(network(), [(DATA, LABELS)], config=settings, **options)


def densities(result: MaskResult) -> dict[str, float]:
    return {row.name: row.density for row in result.report.layers}


def kept(result: MaskResult) -> dict[str, int]:
    return {row.name: row.kept for row in result.report.layers}


def equal_results(a: MaskResult, b: MaskResult) -> bool:
    one, other = a.masks.fitted, b.masks.fitted
    assert one is not None
    assert other is not None
    return a.masks == b.masks and all(torch.equal(one[k], other[k]) for k in one)


def test_auto_is_the_knapsack_and_a_scope_of_ones_own_is_kept_to() -> None:
    assert equal_results(prune({}), prune({"method": "knapsack", "curve": "loss"}))
    uniform = prune({"method": "uniform"})
    assert kept(uniform) == {n: round(0.2 * s) for n, s in SIZES.items()}
    by_layer = optimize_masks(
        network(),
        [(DATA, LABELS)],
        sparsity=0.8,
        refit=True,
        progress=False,
        config={
            "threads": 1,
            "batches": {"steps": 2, "size": 64},
            "prune": {"scope": "layer"},
        },
    )
    assert equal_results(by_layer, uniform)


@pytest.mark.parametrize("curve", ["loss", "fisher", "layer-error"])
@pytest.mark.parametrize("refit", [True, False])
def test_knapsack_meets_the_total_and_predicts_less_damage(curve: str, refit: bool) -> None:
    result = prune({"method": "knapsack", "curve": curve}, refit=refit)
    assert sum(kept(result).values()) == round(0.2 * sum(SIZES.values()))
    report = result.report.allocation
    assert report is not None
    assert (report.method, report.budget, report.curve) == ("knapsack", "parameters", curve)
    assert report.predicted is not None
    assert report.predicted_uniform is not None
    assert report.predicted < report.predicted_uniform
    assert report.spent == report.limit == round(0.2 * sum(SIZES.values()))
    assert {row.name: row.kept for row in report.layers} == kept(result)
    for row in report.layers:
        assert [d for d, _ in row.levels] == sorted(d for d, _ in row.levels)
        assert row.levels[-1] == (1.0, 0.0)
    assert any("allocation 'knapsack': sum of" in note for note in result.report.notes)
    assert 0 < report.seconds < result.report.seconds
    assert "allocation" in result.report.as_dict()


def test_knapsack_is_the_best_of_all_allocations_by_its_own_curves() -> None:
    result = prune({"method": "knapsack", "curve": "layer-error"})
    report = result.report.allocation
    assert report is not None
    assert report.predicted is not None
    # every combination of measured levels within the budget
    best = min(
        sum(damage for _, damage in levels)
        for levels in itertools.product(*(row.levels for row in report.layers))
        if sum(d * row.total for (d, _), row in zip(levels, report.layers, strict=True))
        <= report.limit + 1e-9
    )
    assert report.predicted <= best + 1e-9


def test_the_same_seed_gives_the_same_densities() -> None:
    for curve in ("loss", "fisher", "layer-error"):
        options = {"method": "knapsack", "curve": curve, "samples": 40, "judging": 9, "rows": 3}
        assert prune(options).masks == prune(options).masks


def test_the_fisher_curve_refuses_a_loss_whose_labels_cannot_be_drawn() -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    with pytest.raises(ConfigError, match=r"curve = 'fisher' needs loss = cross_entropy"):
        prune({"method": "knapsack", "curve": "fisher"}, loss=loss)


def test_owl_keeps_the_mean_and_the_range() -> None:
    result = prune({"method": "owl", "owl_threshold": 2.0, "owl_range": 0.05})
    assert sum(kept(result).values()) == round(0.2 * sum(SIZES.values()))
    report = result.report.allocation
    assert report is not None
    for name, d in densities(result).items():
        assert abs(d - 0.2) <= 0.05 + 1.0 / SIZES[name]
    shares = [row.outliers for row in report.layers]
    ranked = sorted(report.layers, key=lambda row: row.outliers or 0.0)
    assert None not in shares
    assert ranked[0].density < ranked[-1].density


@pytest.mark.parametrize("method", ["uniform", "owl", "knapsack"])
@pytest.mark.parametrize("budget", ["flops", "bytes"])
def test_other_budgets_hold(method: str, budget: str) -> None:
    result = prune({"method": method, "budget": budget, "owl_threshold": 2.0})
    report = result.report.allocation
    assert report is not None
    if budget == "flops":
        spent = sum(FLOPS[n] // SIZES[n] * k for n, k in kept(result).items())
        dense = sum(FLOPS.values())
    else:
        spent = sum(4 * k + -(-SIZES[n] // 8) for n, k in kept(result).items())
        dense = 4 * sum(SIZES.values())
    assert report.spent == spent <= report.limit <= 0.2 * dense
    # what is left buys no weight more
    assert report.limit - spent < (64 if budget == "flops" else 4)


def test_layers_with_a_sparsity_of_their_own_keep_it() -> None:
    own = {"layers": {"sparsity": {"6": 0.25}}}
    for method in ("knapsack", "owl"):
        result = prune({"method": method, "curve": "layer-error"}, config=own)
        assert kept(result)["6"] == 90
        assert kept(result)["0"] + kept(result)["4"] == round(0.2 * (36 + 1536))
        assert result.report.allocation is not None
        assert [row.name for row in result.report.allocation.layers] == ["0", "4"]
    everything = {"layers": {"sparsity": {"*": 0.5}}}
    result = prune({"method": "knapsack"}, config=everything)
    assert kept(result) == {n: s // 2 for n, s in SIZES.items()}


def test_rows_share_evenly_and_never_more_than_the_total() -> None:
    result = prune({"method": "knapsack"}, config={"prune": {"scope": "row"}})
    total = round(0.2 * sum(SIZES.values()))
    assert total - 24 < sum(kept(result).values()) <= total
    for name, rows in (("0.weight", 4), ("4.weight", 24), ("6.weight", 5)):
        mask = result.masks[name].reshape(rows, -1)
        assert len(set(mask.sum(1).tolist())) == 1


def test_the_floor_of_a_layer_holds() -> None:
    options = {"method": "knapsack", "densities": [0.001, 0.2, 0.5]}
    result = prune(options, config={"layers": {"min_kept": 20}})
    assert min(kept(result).values()) >= 20


@pytest.mark.parametrize("scope", ["auto", "layer"])
def test_global_objective(scope: str) -> None:
    result = prune(
        {"method": "knapsack"},
        objective="global",
        config={"prune": {"scope": scope}, "schedule": {"kind": "cubic", "stages": 2}},
    )
    report = result.report.allocation
    assert report is not None
    assert sum(kept(result).values()) == round(0.2 * sum(SIZES.values()))
    noted = any("it is the first mask's" in note for note in result.report.notes)
    assert noted == (scope == "auto")
    if scope == "layer":
        assert {row.name: row.kept for row in report.layers} == kept(result)
    still = prune(
        {"method": "knapsack"}, objective="global", refit=False, config={"batches": {"steps": 0}}
    )
    assert still.report.allocation is not None
    assert {row.name: row.kept for row in still.report.allocation.layers} == kept(still)


@settings(deadline=None, max_examples=50)
@given(
    counts=st.tuples(st.integers(0, 48), st.integers(0, 24)),
    seed=st.integers(0, 99),
    equal=st.booleans(),
)
def test_scores_by_counts_give_the_counts(counts: tuple[int, int], seed: int, equal: bool) -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    state = WeightState(model, find_layers(model))
    rng = np.random.default_rng(seed)
    score = np.ones(72) if equal else rng.normal(size=72)
    wanted = {"0": counts[0], "2": counts[1]}
    new = first_by_counts(state, score, wanted)
    mask = best_per_group(new, np.zeros(72, np.int64), np.array([sum(counts)]))
    assert [int(mask[state.span(i)].sum()) for i in (0, 1)] == list(counts)
    for i in (0, 1):
        inside, chosen = score[state.span(i)], mask[state.span(i)]
        if chosen.any() and not chosen.all():
            assert inside[chosen].min() >= inside[~chosen].max()


def test_budgets_from_counts() -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    state = WeightState(model, find_layers(model))
    for scope, expected in (("layer", [30, 8]), ("global", [38]), ("row", [5] * 6 + [2] * 4)):
        config = Config().replace(prune={"scope": scope})
        assert make_budgets(state, config, {"0": 30, "2": 8}).kept.tolist() == expected


@pytest.mark.parametrize(
    ("allocation", "given", "error", "complaint"),
    [
        ({"method": "knapsack"}, {"pattern": "1:2"}, ConfigError, "needs pattern = .*got '1:2'"),
        ({"budget": "bytes"}, {"pattern": "block:2x2"}, ConfigError, "needs pattern = 'unstr"),
        (
            {"method": "owl"},
            {"config": {"initial": {"method": "nonzero"}}},
            ConfigError,
            "'nonzero' keeps what is non-zero",
        ),
        ({"budget": "flops"}, {"objective": "global"}, ConfigError, "prune.scope = 'layer'"),
        (
            {"method": "knapsack", "densities": [0.5, 0.9]},
            {},
            BudgetError,
            "sparsest levels of the layers cost 846",
        ),
        ({"budget": "bytes"}, {"sparsity": 0.98}, BudgetError, "budget 'bytes': .*fewest weights"),
        (
            {"method": "uniform", "budget": "flops"},
            {"sparsity": 0.9999},
            BudgetError,
            "budget 'flops': .*lower the sparsity",
        ),
    ],
)
def test_what_is_refused_before_any_work(
    allocation: dict, given: dict, error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        prune(allocation, **given)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"method": "knapsak"}, "'knapsack'"),
        ({"levels": 1}, "allocation.levels"),
        ({"span": 1.0}, "allocation.span"),
        ({"densities": [0.1, 1.0]}, "each density must be in"),
        ({"densities": [0.1, 0.1]}, "may stand once"),
        ({"densites": [0.1]}, "did you mean 'densities'"),
    ],
)
def test_bad_options_are_refused(options: dict, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Config.from_table({"allocation": options})


def test_a_regression_needs_no_labels_for_layer_errors_and_takes_mse_with_them() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(10, 12), nn.ReLU(), nn.Linear(12, 1))
    x = torch.randn(80, 10, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = model(x)

    def run(data: object, curve: str) -> MaskResult:
        return optimize_masks(
            copy.deepcopy(model),
            [data],
            sparsity=0.5,
            objective="reconstruction",
            refit=True,
            progress=False,
            config={"threads": 1, "allocation": {"method": "knapsack", "curve": curve}},
        )

    for data, curve in ((x, "layer-error"), ((x, y), "loss"), (x, "fisher"), ((x, y), "fisher")):
        assert run(data, curve).density == pytest.approx(0.5, abs=0.01)
    with pytest.raises(CalibrationError, match="'layer-error'"):
        run(x, "loss")
