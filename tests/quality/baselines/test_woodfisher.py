"""WoodFisher's inverse and its surgeon's steps, against matrices small enough to invert."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from benchmarks.quality.baselines.flat import FlatWeights
from benchmarks.quality.baselines.woodfisher import FisherBlock, WoodFisher
from optiprune.curvature import find_layers


def columns(b: int, n: int, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.normal(size=(b, n)) + 2.0 * rng.normal(size=(1, n)))


def fisher(G: Tensor, damping: float) -> Tensor:
    return G @ G.T / G.shape[1] + damping * torch.eye(G.shape[0], dtype=torch.float64)


def sherman_morrison(G: Tensor, damping: float) -> Tensor:
    """The recursion of the paper, one gradient after the other."""
    n = G.shape[1]
    inverse = torch.eye(G.shape[0], dtype=torch.float64) / damping
    for g in G.T:
        v = inverse @ g
        inverse = inverse - torch.outer(v, v) / (n + g @ v)
    return inverse


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(1, 12), st.integers(0, 10_000))
def test_inverse_is_the_direct_one_and_that_of_the_recursion(b: int, n: int, seed: int):
    G = columns(b, n, seed)
    block = FisherBlock(G, 0.01)
    direct = torch.linalg.inv(fisher(G, 0.01))
    torch.testing.assert_close(direct, sherman_morrison(G, 0.01), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(block.diagonal(), direct.diagonal(), rtol=1e-7, atol=1e-7)
    unit = torch.eye(b, dtype=torch.float64)
    product = torch.stack([block.product(e) for e in unit])
    torch.testing.assert_close(product, direct, rtol=1e-7, atol=1e-7)


def test_float32_columns_lose_little():
    G = columns(300, 100).float() * 1e-2
    direct = torch.linalg.inv(fisher(G.double(), 1e-5))
    block = FisherBlock(G, 1e-5)
    torch.testing.assert_close(block.diagonal(), direct.diagonal(), rtol=2e-3, atol=0.0)
    v = torch.ones(300, dtype=torch.float64)
    error = (block.product(v) - direct @ v).norm() / (direct @ v).norm()
    assert float(error) < 1e-3


def layer_of(rows: int, cols: int, seed: int) -> FlatWeights:
    model = nn.Sequential(nn.Linear(cols, rows))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor(np.random.default_rng(seed).normal(size=(rows, cols))))
    return FlatWeights.of(model, find_layers(model))


def test_one_pruned_weight_costs_its_score_and_leaves_no_gradient():
    """Optimal brain surgeon: d_q = -w_q, F d = 0 elsewhere, and d'Fd / 2 is the score."""
    flat = layer_of(4, 5, 0)
    w, G = flat.dense.double(), columns(20, 30)
    F = fisher(G, 0.02)
    method = WoodFisher(block=20, damping=0.02)
    after, mask = method.stage(flat, w, torch.ones(20, dtype=torch.bool), G, 19)
    score = w.square() / (2.0 * torch.linalg.inv(F).diagonal())
    (gone,) = torch.nonzero(~mask)[:, 0].tolist()
    assert gone == int(score.argmin())
    d = after - w
    slope = F @ d
    assert float(slope[mask].abs().max()) < 1e-9
    assert float(d[gone]) == pytest.approx(-float(w[gone]))
    assert 0.5 * float(d @ F @ d) == pytest.approx(float(score.min()))


def test_steps_of_weights_pruned_together_add_up_within_their_block():
    flat = layer_of(4, 5, 1)
    w, G = flat.dense.double(), columns(20, 30, 1)
    method = WoodFisher(block=10, damping=0.02)
    after, mask = method.stage(flat, w, torch.ones(20, dtype=torch.bool), G, 12)
    expected = w.clone()
    for s in (slice(0, 10), slice(10, 20)):
        inverse = torch.linalg.inv(fisher(G[s], 0.02))
        for q in torch.nonzero(~mask[s])[:, 0].tolist():
            expected[s] -= w[s][q] * inverse[:, q] / inverse[q, q]
    expected[~mask] = 0.0
    torch.testing.assert_close(after, expected)


def test_pruned_weights_stay_out_of_later_stages():
    flat = layer_of(4, 5, 2)
    w, G = flat.dense.double(), columns(20, 30, 2)
    method = WoodFisher(block=20, damping=0.02)
    w1, first = method.stage(flat, w, torch.ones(20, dtype=torch.bool), G, 14)
    w2, second = method.stage(flat, w1, first, G, 8)
    assert int(first.sum()) == 14
    assert int(second.sum()) == 8
    assert not bool((second & ~first).any())
    assert bool((w2[~second] == 0).all())
    # as if the pruned weights had never been there
    kept = torch.nonzero(first)[:, 0]
    score = w1[kept].square() / torch.linalg.inv(fisher(G[kept], 0.02)).diagonal()
    assert set(kept[score.argsort()[6:]].tolist()) == set(torch.nonzero(second)[:, 0].tolist())


@pytest.mark.parametrize("k", [0, 20])
def test_all_or_nothing_and_dead_gradients(k: int):
    flat = layer_of(4, 5, 3)
    w, G = flat.dense.double(), torch.zeros(20, 30, dtype=torch.float64)
    after, mask = WoodFisher(block=7).stage(flat, w, torch.ones(20, dtype=torch.bool), G, k)
    assert int(mask.sum()) == k
    assert torch.equal(after, w if k else torch.zeros_like(w))
