"""Masks and re-fitted weights chosen together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from optiprune import optimize_masks
from optiprune.engine.row_subset import subset_batch
from optiprune.solvers import BaseSolver, get


def squared_error(H, b, mask):
    s = np.flatnonzero(mask)
    return -float(b[s] @ np.linalg.solve(H[np.ix_(s, s)], b[s]))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.integers(2, 30), st.data())
def test_a_batchs_energy_is_the_change_of_the_re_fitted_error(seed, cols, data):
    r = np.random.default_rng(seed)
    x = r.standard_normal((2 * cols + 5, cols))
    H = x.T @ x / len(x)
    b = H @ r.standard_normal(cols)
    mask = np.zeros(cols, bool)
    mask[r.permutation(cols)[: data.draw(st.integers(1, cols - 1))]] = True
    batch = subset_batch(H, b, mask, data.draw(st.integers(2, cols)))
    assert batch is not None
    scale = abs(squared_error(H, b, mask))
    assert batch.problem.energy(batch.x0) == pytest.approx(0.0, abs=1e-9 * scale)
    np.testing.assert_array_equal(mask[batch.index], batch.x0 == 1)
    other = r.permutation(batch.x0).astype(np.int8)
    moved = mask.copy()
    moved[batch.index] = other == 1
    change = squared_error(H, b, moved) - squared_error(H, b, mask)
    assert batch.problem.energy(other) == pytest.approx(change, abs=1e-8 * scale)


def test_rows_with_nothing_to_exchange_have_no_batch():
    H, b = np.eye(4), np.ones(4)
    assert subset_batch(H, b, np.zeros(4, bool), 4) is None
    assert subset_batch(H, b, np.ones(4, bool), 4) is None
    assert subset_batch(np.zeros((4, 4)), b, np.array([1, 1, 0, 0], bool), 4) is None


def test_the_batch_holds_the_cheapest_and_the_most_gainful():
    H = np.eye(6)
    b = np.array([3.0, 1.0, 2.0, 0.5, 5.0, 4.0])
    batch = subset_batch(H, b, np.array([1, 1, 1, 0, 0, 0], bool), 2)
    assert batch is not None
    assert batch.index.tolist() == [1, 4]
    # one squared loses, five squared is gained
    assert batch.problem.energy([0, 1]) == pytest.approx(1.0 - 25.0)


def network(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(20, 24), nn.ReLU(), nn.Linear(24, 12), nn.ReLU(),
                          nn.Linear(12, 5))  # fmt: skip
    mix = torch.randn(20, 20) / 20**0.5
    return model, torch.randn(400, 20) @ mix


def pruned(config=None, **options):
    model, data = network()
    arguments = {"sparsity": 0.7, "objective": "reconstruction", "refit": True, **options}
    result = optimize_masks(model, [data], config=config, **arguments)
    return model, result


def errors(result):
    return [layer.error_refit for layer in result.report.layers]


def test_it_beats_a_mask_chosen_for_other_values():
    before = errors(pruned({"joint": {"enabled": False}})[1])
    start = errors(pruned({"joint": {"rounds": 0}})[1])
    both = errors(pruned()[1])
    # the first layer sees the same inputs in all three
    assert both[0] < start[0] < before[0]
    assert sum(both) < 0.9 * sum(before)


def test_promises_are_kept():
    _, result = pruned({"accept": {"holdout": 0.0}, "refit": {"damping": 0.0}})
    found = [r for r in result.history if r.changed]
    assert found
    first = sum(r.predicted for r in found if r.layers == ("0",))
    _, start = pruned(
        {"accept": {"holdout": 0.0}, "refit": {"damping": 0.0}, "joint": {"rounds": 0}}
    )
    assert errors(result)[0] - errors(start)[0] == pytest.approx(first, rel=1e-5)


def test_the_masks_do_not_depend_on_the_number_of_workers():
    one, two = pruned({"workers": 1})[1], pruned({"workers": 2})[1]
    for name, mask in one.masks.items():
        assert torch.equal(mask, two.masks[name])


def test_budgets_stay():
    for options, scope in (({}, "layer"), ({}, "row"), ({"pattern": "2:4"}, "auto")):
        model, result = pruned({"prune": {"scope": scope}}, **options)
        for name, mask in result.masks.items():
            if options:
                assert (mask.reshape(-1, 4).sum(1) == 2).all()
            elif scope == "row":
                assert len(set(mask.sum(1).tolist())) == 1
            assert not model.get_parameter(name)[~mask].any()


def test_a_solver_without_best_subsets_says_what_that_means():
    _, result = pruned(solver="annealing")
    assert any("best-subset" in note for note in result.report.notes)
    _, meant = pruned({"joint": {"enabled": False}}, solver="annealing")
    assert not any("best-subset" in note for note in meant.report.notes)


def test_a_solver_that_fails_costs_neither_model_nor_layers(monkeypatch):
    model, data = network()
    before = {k: v.clone() for k, v in model.state_dict().items()}

    def broken(self, *args):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(type(get("tabu")), "_solve", broken)
    assert issubclass(type(get("tabu")), BaseSolver)
    with pytest.raises(Exception, match="out of luck"):
        optimize_masks(model, [data], sparsity=0.7, refit=True, solver="tabu")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_dead_inputs_and_layers_without_freedom_pass():
    model, data = network()
    data[:, :6] = 0.0
    result = optimize_masks(model, [data], sparsity=0.5, refit=True)
    assert all(np.isfinite(e) for e in errors(result))
    kept = result.masks["0.weight"][:, :6]
    assert not kept.any()


@pytest.mark.parametrize("pattern", ["2:4", "1:4"])
def test_with_a_pattern_groups_are_swept_for_the_values_after_the_refit(pattern):
    before = errors(pruned({"joint": {"enabled": False}}, pattern=pattern)[1])
    start = errors(pruned({"joint": {"sweeps": 0}}, pattern=pattern)[1])
    _, result = pruned(pattern=pattern)
    both = errors(result)
    # the first layer sees the same inputs in all three
    assert both[0] <= start[0] <= before[0]
    assert both[0] < before[0]
    assert sum(both) < 0.9 * sum(before)
    for mask in result.masks.values():
        assert (mask.reshape(-1, 4).sum(1) == int(pattern[0])).all()
    assert {r.solver for r in result.history} == {"group-sweeps"}


def test_what_group_sweeps_promise_is_measured():
    options = {"accept": {"holdout": 0.0}, "refit": {"damping": 1e-8}}
    _, result = pruned(options, pattern="2:4")
    _, start = pruned({**options, "joint": {"sweeps": 0}}, pattern="2:4")
    promised = sum(r.predicted for r in result.history if r.layers == ("0",))
    assert errors(result)[0] - errors(start)[0] == pytest.approx(promised, rel=1e-5)


def test_batches_go_to_the_rows_with_the_largest_errors():
    everywhere, some = (pruned({"joint": {"rows": n}})[1] for n in (10**6, 8))
    none = pruned({"joint": {"rounds": 0}})[1]
    for all_rows, few_rows, no_rows in zip(*map(errors, (everywhere, some, none)), strict=True):
        assert all_rows <= few_rows * 1.05
        assert few_rows <= no_rows * 1.05
    assert sum(errors(some)) < sum(errors(none))
    blocks = [s for s in some.history if s.size]
    # an eighth or so of 41 rows: ceil(24 s) + ceil(12 s) + ceil(5 s) with s = 8 / 41
    solved = sum(s.size for s in blocks)
    assert 0 < solved < 0.5 * sum(s.size for s in everywhere.history)
