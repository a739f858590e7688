"""Mask search for layer reconstruction: problems, acceptance, patterns, failures."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from optiprune.config import BatchOptions, Config
from optiprune.curvature.data import CalibrationSet
from optiprune.curvature.gram import collect_grams
from optiprune.curvature.layers import LayerError, find_layers
from optiprune.engine.errors import StepFailedError
from optiprune.engine.reconstruction import reconstruct
from optiprune.engine.row_search import flip_costs, row_batch, row_problem
from optiprune.problems import CardinalityQP
from optiprune.solvers import (
    Capabilities,
    InvalidSolutionError,
    Solution,
    SolveStats,
    Status,
    UnsupportedProblemError,
)

CPU = torch.device("cpu")
SEED = np.random.SeedSequence(0)
CAPABILITIES = Capabilities(frozenset({CardinalityQP}))


@dataclass
class Descent:
    """Best-exchange descent, the slow obvious way; remembers the largest problem it saw."""

    name: str = "descent"
    capabilities: Capabilities = CAPABILITIES
    sizes: list[int] = field(default_factory=list)
    fail_at: int = 10**9
    garbage: str = ""

    def solve(self, problem, *, x0=None, seed=0, stop=None):
        self.sizes.append(problem.n)
        if len(self.sizes) > self.fail_at:
            raise RuntimeError("the back end fell over")
        x = np.array(x0, dtype=np.int8)
        while True:
            pairs = [
                (problem.exchange_delta(x, out, into), out, into)
                for out in np.flatnonzero(x == 1)
                for into in np.flatnonzero(x == 0)
                if problem.groups[out] == problem.groups[into]
            ]
            if not pairs or min(pairs)[0] >= -1e-12:
                break
            _, out, into = min(pairs)
            x[out], x[into] = 0, 1
        energy = problem.energy(x)
        if self.garbage == "energy":
            energy -= 1.0
        if self.garbage == "length":
            x = x[:-1]
        if self.garbage == "infeasible":
            x = np.ones_like(x)
        return Solution(x, energy, None, Status.FEASIBLE, SolveStats(self.name))


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def correlated(n, cols, seed=0):
    return randn(n, cols, seed=seed) @ randn(cols, cols, seed=seed + 1) / cols**0.5


def make(widths=(6, 8, 4), n=120, seed=0):
    torch.manual_seed(seed)
    parts = []
    for a, b in pairwise(widths):
        parts += [nn.Linear(a, b), nn.ReLU()]
    model = nn.Sequential(*parts[:-1])
    data = CalibrationSet.collect([correlated(n, widths[0], seed)], CPU)
    return model, find_layers(model), data


def first_masks(layers, share=0.5, pattern=None):
    out = {}
    for i, layer in enumerate(layers):
        score = torch.rand(layer.rows, layer.cols, generator=torch.Generator().manual_seed(i))
        if pattern:
            n, m = pattern
            score = score.reshape(layer.rows, -1, m)
            rank = score.argsort(2).argsort(2) < n
        else:
            rank = score.argsort(1).argsort(1) < round(share * layer.cols)
        out[layer.parameter] = rank.reshape(layer.shape)
    return out


def config_of(**sections):
    return Config.from_table({"prune": {"refit": False}, **sections})


def run(model, layers, data, masks, *, holdout=None, solver=None, **sections):
    return reconstruct(
        model, layers, masks, data, holdout, config_of(**sections), solver or Descent(), SEED
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 10), st.booleans())
def test_problem_energy_is_the_change_of_the_layer_error(seed, cols, part):
    rng = np.random.default_rng(seed)
    X, Xd = rng.normal(size=(2, 20, cols))
    H, C, D = X.T @ X / 20, X.T @ Xd / 20, Xd.T @ Xd / 20
    H = (H + H.T) / 2
    w, mask = rng.normal(size=cols), rng.random(cols) < 0.5
    index = np.sort(rng.permutation(cols)[: cols // 2 + 1]) if part else np.arange(cols)
    problem = row_problem(H, C @ w, w, mask, index, None)

    def error(m):
        return (((X @ (w * m)) - Xd @ w) ** 2).mean()

    assert problem.energy(mask[index]) == pytest.approx(0.0, abs=1e-12)
    assert error(mask) == pytest.approx(
        (w * mask) @ H @ (w * mask) - 2 * (w * mask) @ C @ w + w @ D @ w
    )
    new = mask.copy()
    new[index] = rng.permutation(mask[index])
    assert problem.violation(new[index]) == 0
    assert problem.energy(new[index]) == pytest.approx(error(new) - error(mask), abs=1e-9)
    costs = flip_costs(H, C @ w, w, mask)
    for i in range(cols):
        flipped = mask.copy()
        flipped[i] ^= True
        assert costs[i] == pytest.approx(error(flipped) - error(mask), abs=1e-9)


def test_hand_derived_row():
    # inputs that are equal: dense row (1, -1, 2), X = one feature three times, H all ones.
    # Output 2x. Keeping the third alone is exact; keeping the first alone costs (1 - 2)^2 = 1.
    H, w = np.ones((3, 3)), np.array([1.0, -1.0, 2.0])
    problem = row_problem(H, H @ w, w, np.array([True, False, False]), np.arange(3), None)
    assert problem.energy([0, 0, 1]) == pytest.approx(-1.0)
    assert problem.energy([0, 1, 0]) == pytest.approx(8.0)  # (-1 - 2)^2 - 1


def test_pattern_problem_has_one_budget_a_group():
    w, mask = np.ones(8), np.array([1, 1, 0, 0, 0, 1, 0, 1], dtype=bool)
    problem = row_problem(np.eye(8), w, w, mask, np.arange(4, 8), (2, 4))
    assert problem.k.tolist() == [2]
    problem = row_problem(np.eye(8), w, w, mask, np.arange(8), (2, 4))
    assert problem.k.tolist() == [2, 2]
    assert problem.groups.tolist() == [0] * 4 + [1] * 4


def test_batch_prefers_the_cheapest_and_those_not_visited():
    cost = np.array([5.0, 1.0, 2.0, 9.0, -3.0, 4.0, 8.0, 0.0])
    mask = np.array([1, 1, 1, 1, 0, 0, 0, 0], dtype=bool)
    options = BatchOptions(size=4, noise=0.0)
    rng = np.random.default_rng(0)
    none = np.zeros(8, dtype=bool)
    assert row_batch(cost, mask, none, options, None, rng).tolist() == [1, 2, 4, 7]
    seen = none.copy()
    seen[[1, 2, 4, 7]] = True
    assert row_batch(cost, mask, seen, options, None, rng).tolist() == [0, 3, 5, 6]
    # groups of 2: (5,1) and (8,0) have nothing to exchange within
    pairs = np.array([1, 1, 1, 0, 0, 1, 0, 0], dtype=bool)
    options = BatchOptions(size=2, noise=0.0)
    assert row_batch(cost, pairs, none, options, (1, 2), rng).tolist() == [4, 5]
    seen = np.repeat([False, False, True, False], 2)
    assert row_batch(cost, pairs, seen, options, (1, 2), rng).tolist() == [2, 3]


@pytest.mark.parametrize("inputs", ["pruned", "dense"])
def test_error_falls_budgets_stay_and_promises_are_kept(inputs):
    model, layers, data = make()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    masks = first_masks(layers)
    result = run(model, layers, data, masks, curvature={"inputs": inputs})
    for layer, report in zip(layers, result.layers, strict=True):
        old, new = (m[layer.parameter].reshape(layer.rows, -1) for m in (masks, result.masks))
        assert torch.equal(old.sum(1), new.sum(1))
        assert report.masked < 0.7 * report.initial
        assert report.changed == int((old != new).sum()) > 0
    for r in result.records:
        assert r.predicted == pytest.approx(r.train, rel=1e-4, abs=1e-6)
        assert r.accepted_train <= 0
    assert result.values is None
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_reported_errors_are_those_of_the_layers_outputs():
    model, layers, data = make()
    result = run(model, layers, data, first_masks(layers))
    x = next(iter(data.batches(1000))).inputs
    with torch.no_grad():
        dense1 = model[0](x)
        dense2 = model[2](dense1.relu())
        for layer in layers:
            layer.modules[0].weight.mul_(result.masks[layer.parameter])
        pruned1 = model[0](x)
        pruned2 = model[2](pruned1.relu())
    for report, a, b in zip(result.layers, (dense1, dense2), (pruned1, pruned2), strict=True):
        assert report.masked == pytest.approx(float((a - b).square().sum(1).mean()), rel=1e-4)


def test_descent_ends_in_an_exchange_optimum_row_by_row():
    model, layers, data = make((6, 3))
    result = run(model, layers, data, first_masks(layers))
    layer = layers[0]
    gram = collect_grams(model, layers, {}, None, data)[layer.name]
    w, mask = layer.modules[0].weight.detach(), result.masks[layer.parameter]
    best = []
    for keep in combinations(range(6), 3):
        rows = torch.zeros(3, 6)
        rows[:, list(keep)] = w[:, list(keep)]
        best.append(gram.error(rows, w))
    now = gram.error(w * mask, w)
    for r in range(3):
        kept = set(torch.nonzero(mask[r])[:, 0].tolist())
        near = [
            e[r]
            for k, e in zip(combinations(range(6), 3), best, strict=True)
            if len(kept & set(k)) >= 2
        ]
        assert now[r] <= min(near) + 1e-9


def test_refit_lowers_the_error_further_and_keeps_zeros():
    model, layers, data = make()
    result = run(model, layers, data, first_masks(layers), prune={"refit": True})
    assert result.values is not None
    for report in result.layers:
        assert report.refitted is not None
        assert report.refitted < report.masked < report.initial
        values, mask = result.values[report.parameter], result.masks[report.parameter]
        assert (values[~mask] == 0).all()
        assert values.dtype == torch.float32


def test_rows_that_lose_on_held_out_data_are_rolled_back():
    # six samples cannot judge twelve weights: what they gain is lost elsewhere, at least in part
    model, layers, _ = make((12, 30))
    train = CalibrationSet.collect([correlated(6, 12, seed=3)], CPU)
    held = CalibrationSet.collect([randn(400, 12, seed=9)], CPU)
    masks = first_masks(layers)
    free = run(model, layers, train, masks)
    safe = run(model, layers, train, masks, holdout=held)
    assert sum(r.rows_accepted for r in free.records) == sum(r.rows_changed for r in free.records)
    assert (
        0 < sum(r.rows_accepted for r in safe.records) < sum(r.rows_changed for r in safe.records)
    )
    gram = collect_grams(model, layers, {}, None, held)["0"]
    w = layers[0].modules[0].weight.detach()
    old, new = (gram.error(w * m[layers[0].parameter], w) for m in (masks, safe.masks))
    assert (new <= old + 1e-9).all()
    report = safe.layers[0]
    assert report.holdout_masked == pytest.approx(float(new.sum()), rel=1e-5)
    # refit on six samples is undone row by row in the same way
    fitted = run(model, layers, train, masks, holdout=held, prune={"refit": True}).layers[0]
    assert fitted.refit_rejected > 0
    assert fitted.holdout_refitted <= fitted.holdout_masked + 1e-9


@pytest.mark.parametrize("size", [1024, 8])
def test_patterns_are_kept(size):
    model, layers, data = make((16, 6))
    masks = first_masks(layers, pattern=(2, 4))
    solver = Descent()
    out = run(
        model, layers, data, masks, solver=solver, prune={"pattern": "2:4", "refit": False},
        batches={"size": size},
    )  # fmt: skip
    mask = out.masks["0.weight"].reshape(6, 4, 4)
    assert (mask.sum(2) == 2).all()
    assert out.layers[0].masked < out.layers[0].initial
    assert max(solver.sizes) == min(size, 16)


def test_rows_longer_than_a_batch_are_visited_in_rounds():
    model, layers, data = make((20, 5))
    solver = Descent()
    out = run(
        model, layers, data, first_masks(layers), solver=solver, batches={"size": 8, "sweeps": 3}
    )
    assert max(solver.sizes) <= 8
    assert {r.round for r in out.records} == {0, 1, 2}
    for r in out.records:
        assert r.predicted == pytest.approx(r.train, rel=1e-4, abs=1e-6)
    assert out.layers[0].masked < 0.7 * out.layers[0].initial


def test_convolution_with_groups():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, groups=2), nn.ReLU(), nn.Conv2d(6, 3, 2))
    data = CalibrationSet.collect([randn(20, 4, 6, 6)], CPU)
    layers = find_layers(model)
    out = run(model, layers, data, first_masks(layers), prune={"refit": True})
    for report in out.layers:
        assert report.refitted < report.masked < 0.8 * report.initial


def test_sweeps_stop_when_nothing_changes():
    model, layers, data = make((6, 3))
    out = run(model, layers, data, first_masks(layers), batches={"sweeps": 50})
    assert (
        max(r.sweep for r in out.records) == 1
    )  # descent ends in one sweep; the next finds nothing


def test_same_outcome_for_any_number_of_workers():
    model, layers, data = make((20, 12, 4))
    masks = first_masks(layers)
    outs = [run(model, layers, data, masks, workers=n, batches={"size": 8}) for n in (1, 3)]
    for name in masks:
        assert torch.equal(outs[0].masks[name], outs[1].masks[name])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_solver_that_raises_leaves_the_result_so_far(workers):
    model, layers, data = make()
    masks = first_masks(layers)
    # of two threads either may make the tenth call
    row = "1" if workers == 1 else "[0-3]"
    with pytest.raises(StepFailedError, match=rf"layer '2', row {row}.*fell over") as info:
        run(model, layers, data, masks, solver=Descent(fail_at=9), workers=workers)
    assert isinstance(info.value.__cause__, RuntimeError)
    partial = info.value.partial
    assert not torch.equal(partial.masks["0.weight"], masks["0.weight"])
    assert torch.equal(partial.masks["2.weight"], masks["2.weight"])
    assert [r.layer for r in partial.layers] == ["0"]


@pytest.mark.parametrize("garbage", ["energy", "length", "infeasible"])
def test_a_solver_that_returns_garbage_is_caught(garbage):
    model, layers, data = make()
    with pytest.raises(StepFailedError) as info:
        run(model, layers, data, first_masks(layers), solver=Descent(garbage=garbage))
    assert isinstance(info.value.__cause__, InvalidSolutionError)


def test_wrong_kind_of_solver_says_so_itself():
    class Refusing(Descent):
        def solve(self, problem, *, x0=None, seed=0, stop=None):
            raise UnsupportedProblemError("no CardinalityQP here")

    model, layers, data = make()
    with pytest.raises(UnsupportedProblemError):
        run(model, layers, data, first_masks(layers), solver=Refusing())


def test_bad_masks_and_patterns_are_refused():
    model, layers, data = make()
    masks = first_masks(layers)
    with pytest.raises(LayerError, match=r"no first mask for '2\.weight'"):
        run(model, layers, data, {"0.weight": masks["0.weight"]})
    with pytest.raises(LayerError, match="bool of shape"):
        run(model, layers, data, {**masks, "0.weight": masks["0.weight"].T})
    with pytest.raises(LayerError, match="no multiple of 4"):
        run(model, layers, data, masks, prune={"pattern": "2:4"})
    full = {name: torch.ones_like(m) for name, m in masks.items()}
    with pytest.raises(LayerError, match="keeps 2 of the 2 weights"):
        run(model, layers, data, full, prune={"pattern": "1:2"})


def test_progress_sees_every_record():
    model, layers, data = make((6, 70))
    seen = []
    out = reconstruct(
        model, layers, first_masks(layers), data, None, config_of(), Descent(), SEED, seen.append
    )
    assert seen == out.records
    assert [(r.first_row, r.last_row) for r in seen] == [(0, 64), (64, 70)]
    assert sum(r.size for r in seen) == 70 * 6
    assert sum(r.kept for r in seen) == 70 * 3
