"""iCBS: its blocks, its quadratic, its tabu list, and what a run keeps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from benchmarks.quality.baselines.flat import keep_largest
from benchmarks.quality.baselines.icbs import ICBS, TabuList, block_quadratic, choose_block
from optiprune.curvature import CalibrationSet, find_layers, mean_loss
from optiprune.curvature.losses import cross_entropy


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 9), st.integers(0, 10_000))
def test_energy_is_the_change_of_its_own_quadratic(b: int, n: int, seed: int):
    rng = np.random.default_rng(seed)
    w, g = rng.normal(size=b), rng.normal(size=b)
    factor = rng.normal(size=(n, b)) * rng.normal(size=(n, 1))
    kept = rng.random(b) < 0.5
    q = block_quadratic(w, kept, g, factor, gradient_scale=0.75, ridge=1e-3)
    problem = q.problem(k=int(kept.sum()))
    x = rng.permutation(kept)
    d = w * x - w * kept
    F = factor.T @ factor / n
    change = 0.75 * g @ d + 0.5 * d @ F @ d + 0.5 * 1e-3 * d @ d
    assert problem.energy(x.astype(np.int8)) == pytest.approx(change, rel=1e-4, abs=1e-4)
    assert problem.energy(kept.astype(np.int8)) == pytest.approx(0.0, abs=1e-4)


def test_negative_coefficients_are_kept():
    """Two weights whose gradients oppose one another: going together costs nothing."""
    factor = np.array([[1.0, -1.0], [2.0, -2.0]])
    w = np.ones(2)
    q = block_quadratic(
        w, np.array([True, True]), np.zeros(2), factor, gradient_scale=0.75, ridge=0.0
    )
    problem = q.problem(k=2)
    coupling = float(problem.Q[0, 1] + problem.Q[1, 0])
    assert coupling == pytest.approx(-2.5)
    assert problem.energy(np.array([0, 0])) == pytest.approx(0.0)
    assert problem.energy(np.array([0, 1])) == pytest.approx(1.25)


def test_block_is_half_best_pruned_and_half_worst_kept():
    score = np.array([5.0, 1.0, 4.0, 2.0, 3.0, 9.0, 8.0, 7.0])
    kept = np.array([1, 1, 1, 1, 0, 0, 0, 0], dtype=bool)
    free = np.ones(8, dtype=bool)
    assert choose_block(score, kept, free, 4).tolist() == [5, 6, 1, 3]
    free[5] = free[1] = False
    assert choose_block(score, kept, free, 4).tolist() == [6, 7, 3, 2]
    # two free pruned weights: two kept ones beside them
    free[[6, 7]] = [False, True]
    assert choose_block(score, kept, free, 8).tolist() == [7, 4, 3, 2]
    assert choose_block(score, np.ones(8, dtype=bool), np.ones(8, dtype=bool), 4).size == 0


def test_tabu_list_is_first_in_first_out():
    tabu = TabuList(10, 4)
    tabu.add(np.array([1, 2, 3]))
    tabu.add(np.array([7, 8]))
    assert np.flatnonzero(tabu.inside).tolist() == [2, 3, 7, 8]
    tabu.release(3)
    assert np.flatnonzero(tabu.inside).tolist() == [8]
    assert len(tabu) == 1
    TabuList(3, 0).add(np.array([0]))


def trained() -> tuple[nn.Module, CalibrationSet]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 12, generator=generator)
    y = (x @ torch.randn(12, 4, generator=generator)).argmax(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 4))
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(150):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return model.eval(), CalibrationSet.collect([(x, y)], torch.device("cpu"))


def test_a_run_keeps_the_count_of_every_layer_and_lowers_the_loss():
    model, data = trained()
    layers = find_layers(model)
    method = ICBS(block=32, epochs=2, steps=12, samples=100, look=2)
    masks, values = method.prune(
        model,
        layers,
        data,
        density=0.3,
        loss=cross_entropy,
        seed=np.random.SeedSequence(0),
        seconds=None,
    )
    flat = torch.cat([dict(model.named_parameters())[la.parameter].flatten() for la in layers])
    start = keep_largest(flat.detach().abs(), round(0.3 * flat.numel())).split(
        [la.numel for la in layers]
    )
    for layer, first in zip(layers, start, strict=True):
        assert int(masks[layer.parameter].sum()) == int(first.sum())
    before = {
        la.parameter: flat_part.reshape(la.shape)
        for la, flat_part in zip(
            layers,
            torch.where(torch.cat(list(start)), flat, 0.0).split([la.numel for la in layers]),
            strict=True,
        )
    }
    was = mean_loss(model, before, data, cross_entropy)
    assert mean_loss(model, values, data, cross_entropy) < 0.9 * was


def test_frozen_weights_never_enter_a_block():
    from benchmarks.quality.baselines.flat import FlatWeights
    from benchmarks.quality.baselines.icbs import _Run

    model, data = trained()
    flat = FlatWeights.of(model, find_layers(model))
    run = _Run(ICBS(block=2000), model, flat, data, cross_entropy)
    rng = np.random.default_rng(0)
    score, kept = rng.random(100), np.arange(100) < 40
    fixed = run._freeze(score, kept)
    assert int(fixed[kept].sum()) == 14  # 35 % of 40
    assert int(fixed[~kept].sum()) == 25  # 42 % of 60
    assert score[kept & fixed].min() > score[kept & ~fixed].max()
    assert score[~kept & fixed].max() < score[~kept & ~fixed].min()
    tabu = TabuList(100, 40)
    block = run._block(score, kept, fixed, tabu)
    assert not fixed[block].any()
    assert block.size == 2 * 26  # the free kept weights
    tabu.add(block)
    # all free kept weights are tabu: the oldest are let go, and none is frozen
    again = run._block(score, kept, fixed, tabu)
    assert again.size
    assert not fixed[again].any()
