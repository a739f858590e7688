"""Budgets, the first mask, the density schedule and the choice of a batch."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from optiprune.batches import exchange_costs, marginal_costs, select_batch
from optiprune.config import BatchOptions, Config, ScheduleOptions
from optiprune.curvature import find_layers
from optiprune.engine.budgets import make_budgets
from optiprune.engine.errors import BudgetError
from optiprune.engine.initial import best_per_group, nonzero_mask, require_connected
from optiprune.engine.schedule import pruned_shares
from optiprune.engine.state import WeightState


def state() -> WeightState:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    return WeightState(model, find_layers(model))


def config(**prune: object) -> Config:
    layers = prune.pop("layers", {})
    return Config().replace(prune=prune, layers=layers)


@pytest.mark.parametrize("scope", ["global", "layer", "row"])
@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.5, 0.8])
def test_budgets_meet_the_sparsity(scope: str, sparsity: float) -> None:
    s = state()
    b = make_budgets(s, config(sparsity=sparsity, scope=scope))
    assert len(b.sizes) == {"global": 1, "layer": 2, "row": 10}[scope]
    assert b.sizes.sum() == s.n == 72
    want = {"global": round((1 - sparsity) * 72)}.get(scope)
    if want is not None:
        assert b.kept.sum() == want
    mask = best_per_group(np.abs(s.dense), b.groups, b.kept)
    assert np.array_equal(np.bincount(b.groups[mask], minlength=len(b.kept)), b.kept)


def test_layer_with_a_sparsity_of_its_own_keeps_its_own_budget() -> None:
    s = state()
    b = make_budgets(s, config(sparsity=0.5, scope="global", layers={"sparsity": {"2": 0.25}}))
    assert sorted(zip(b.sizes.tolist(), b.kept.tolist(), strict=True)) == [(24, 18), (48, 24)]


def test_pattern_makes_one_group_of_every_m() -> None:
    s = state()
    with pytest.raises(BudgetError, match="'2' has 6 weights in a row, which 4"):
        make_budgets(s, config(pattern="2:4"))
    b = make_budgets(s, config(pattern="1:2"))
    mask = best_per_group(np.abs(s.dense), b.groups, b.kept)
    assert (mask.reshape(-1, 2).sum(1) == 1).all()
    assert (np.abs(s.dense).reshape(-1, 2).argmax(1) == mask.reshape(-1, 2).argmax(1)).all()


@pytest.mark.parametrize("scope", ["global", "layer", "row"])
def test_density_that_rounds_to_nothing_is_an_error(scope: str) -> None:
    with pytest.raises(BudgetError, match="lower"):
        make_budgets(state(), config(sparsity=0.999, scope=scope))


def test_first_mask_that_empties_a_layer_is_an_error() -> None:
    s = state()
    mask = np.zeros(s.n, dtype=bool)
    mask[s.span(0)] = True
    with pytest.raises(BudgetError, match="0 of the 24 weights of layer '2'"):
        require_connected(s, mask, 1)


def test_already_sparse_keeps_what_is_nonzero() -> None:
    s = state()
    s.dense[::2] = 0
    b = make_budgets(s, config(sparsity=0.5, scope="global"))
    assert np.array_equal(nonzero_mask(s, b), s.dense != 0)
    tight = make_budgets(s, config(sparsity=0.6, scope="global"))
    with pytest.raises(BudgetError, match="36 weights are non-zero"):
        nonzero_mask(s, tight)


@given(
    groups=st.lists(st.integers(0, 3), min_size=1, max_size=30),
    seed=st.integers(0, 1000),
    equal=st.booleans(),
    ascending=st.booleans(),
    span=st.sampled_from([2, 5, 1 << 22]),
    large=st.sampled_from([1, 4096]),
)
@settings(deadline=None, max_examples=100)
def test_best_per_group_keeps_the_best(
    groups: list[int], seed: int, equal: bool, ascending: bool, span: int, large: int
) -> None:
    g = np.array(sorted(groups) if ascending else groups)
    rng = np.random.default_rng(seed)
    score = np.zeros(len(g)) if equal else rng.normal(size=len(g)).round(1)
    kept = np.array([rng.integers(0, np.sum(g == i) + 1) for i in range(4)])
    module = "optiprune.engine.initial"
    with mock.patch(f"{module}._SPAN", span), mock.patch(f"{module}._LARGE", large):
        mask = best_per_group(score, g, kept)
    for i in range(4):
        inside, chosen = score[g == i], score[(g == i) & mask]
        assert len(chosen) == kept[i]
        assert np.array_equal(np.sort(chosen), np.sort(inside)[len(inside) - kept[i] :])


def test_schedules_end_at_the_target() -> None:
    assert pruned_shares(ScheduleOptions(kind="one-shot"), 0.1) == [1.0]
    cubic = pruned_shares(ScheduleOptions(kind="cubic", stages=2), 0.1)
    assert cubic == pytest.approx([1 - 0.5**3, 1.0])
    # geometric to 1/4 in two stages: densities 1/2 and 1/4, so shares (1/2)/(3/4) and 1
    assert pruned_shares(ScheduleOptions(kind="geometric", stages=2), 0.25) == pytest.approx(
        [2 / 3, 1]
    )
    assert pruned_shares(ScheduleOptions(kind="geometric", stages=2), 1.0)[-1] == 1.0


def test_marginal_costs_by_hand() -> None:
    # pruning w = 2 with g = 1, h = 3: -2 + 6 = 4; restoring w = -1 with g = 1, h = 3: -1 + 1.5
    cost = marginal_costs(
        np.array([1.0, 1.0]),
        np.array([3.0, 3.0]),
        np.array([2.0, -1.0]),
        np.array([True, False]),
        0.0,
    )
    assert cost == pytest.approx([4.0, 0.5])


def test_batch_takes_the_cheapest_of_both_sides() -> None:
    rng = np.random.default_rng(0)
    cost, kept = rng.normal(size=200), np.arange(200) < 60
    options = BatchOptions(size=20, noise=0.0, tabu=0.0)
    batch = select_batch(cost, kept, np.zeros(200), options, rng)
    assert len(set(batch.tolist())) == 20
    for side in (kept, ~kept):
        mine = [i for i in batch if side[i]]
        assert set(mine) == set(np.flatnonzero(side)[np.argsort(cost[side])[:10]].tolist())


def test_tabu_and_noise_bring_other_weights() -> None:
    rng = np.random.default_rng(0)
    cost, kept = rng.normal(size=2000), np.arange(2000) < 900
    first = select_batch(cost, kept, np.zeros(2000), BatchOptions(size=50, noise=0), rng)
    heat = np.zeros(2000)
    heat[first] = 1.0
    second = select_batch(cost, kept, heat, BatchOptions(size=50, noise=0, tabu=1.0), rng)
    assert len(set(first) & set(second)) < 25
    same = [
        select_batch(cost, kept, heat, BatchOptions(size=50), np.random.default_rng(7))
        for _ in "ab"
    ]
    assert np.array_equal(*same)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_nothing_to_exchange_gives_an_empty_batch(share: float) -> None:
    kept = np.full(30, bool(share))
    assert (
        select_batch(
            np.zeros(30), kept, np.zeros(30), BatchOptions(), np.random.default_rng(0)
        ).size
        == 0
    )


def test_partners_are_those_that_correlate() -> None:
    kept = np.arange(100) < 50
    cost = np.arange(100.0)

    def strength(few: np.ndarray, pool: np.ndarray) -> np.ndarray:
        return np.isin(pool, [30, 31, 80, 81]).astype(float)

    batch = select_batch(
        cost,
        kept,
        np.zeros(100),
        BatchOptions(size=20, partners=0.2, noise=0, tabu=0),
        np.random.default_rng(0),
        partners=strength,
    )
    assert {30, 31, 80, 81} <= set(batch.tolist())


def test_exchange_costs_by_hand() -> None:
    # budget 0: kept 3 and 1, pruned -2 and 5: the cheapest 1 with -2, then 3 with 5
    # budget 1: kept 4, pruned 0 and 7, both with the one that can go; budget 2 keeps everything
    cost = np.array([3.0, 1.0, -2.0, 5.0, 4.0, 0.0, 7.0, 9.0])
    kept = np.array([1, 1, 0, 0, 1, 0, 0, 1], dtype=bool)
    groups = np.array([0, 0, 0, 0, 1, 1, 1, 2])
    assert exchange_costs(cost, kept, groups).tolist() == [8, -1, -1, 8, 4, 4, 11, np.inf]


@given(
    members=st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=60),
    size=st.integers(2, 40),
    share=st.sampled_from([0.2, 0.5, 0.8]),
    seed=st.integers(0, 100),
)
@settings(deadline=None, max_examples=200)
def test_every_weight_of_a_batch_can_be_exchanged(
    members: list[tuple[int, bool]], size: int, share: float, seed: int
) -> None:
    groups = np.array([g for g, _ in members])
    kept = np.array([k for _, k in members])
    rng = np.random.default_rng(seed)
    cost, heat = rng.normal(size=len(groups)), rng.random(len(groups))
    options = BatchOptions(size=size, kept=share)
    batch = select_batch(cost, kept, heat, options, rng, groups=groups)
    assert len(set(batch.tolist())) == batch.size <= size
    for g in groups[batch]:
        assert set(kept[batch][groups[batch] == g]) == {True, False}
    open_ = [g for g in range(9) if set(kept[groups == g]) == {True, False}]
    assert bool(open_) == bool(batch.size)


def test_a_batch_takes_the_budgets_with_the_best_exchanges() -> None:
    # 8 budgets of one kept and one pruned weight; the cheapest single flips stand in budgets whose
    # other side is dear
    kept = np.tile([True, False], 8)
    groups = np.repeat(np.arange(8), 2)
    cost = np.array([-5, 99, 99, -5, -5, 99, 1, 1, 0, 1, 2, 2, 3, 3, 99, -5], dtype=float)
    options = BatchOptions(size=4, noise=0.0, tabu=0.0)
    batch = select_batch(cost, kept, np.zeros(16), options, np.random.default_rng(0), groups=groups)
    assert sorted(batch.tolist()) == [6, 7, 8, 9]


def test_a_small_batch_still_has_both_sides() -> None:
    kept = np.arange(10) < 5
    for share in (0.1, 0.8, 0.9):
        options = BatchOptions(size=2, kept=share)
        batch = select_batch(np.zeros(10), kept, np.zeros(10), options, np.random.default_rng(0))
        assert kept[batch].sum() == 1
        assert batch.size == 2
