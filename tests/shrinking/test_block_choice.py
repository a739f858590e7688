"""Which blocks leave, against all selections and against differences of the loss."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optiprune.curvature import CalibrationSet
from optiprune.curvature.losses import resolve_loss
from optiprune.shrinking import ShrinkingError, optimize_blocks
from optiprune.shrinking.block_choice import gate_quadratic, loss_without
from optiprune.shrinking.influence import block_influence
from optiprune.structure import find_blocks


class Residual(nn.Module):
    def __init__(self, strength: float) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 8))
        self.strength = strength

    def forward(self, x: Tensor) -> Tensor:
        return x + self.strength * self.inner(x)


def stack() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    blocks = nn.Sequential(*[Residual(s) for s in (0.3, 1.0, 0.05, 0.6, 0.2, 0.8)])
    model = nn.Sequential(nn.Linear(5, 8), blocks, nn.Linear(8, 3)).eval()
    x = torch.randn(300, 5)
    with torch.no_grad():
        y = model(x).argmax(1)
    return model, x, y


@pytest.mark.parametrize("targets", [True, False])
def test_the_selection_is_the_best_of_all(targets: bool) -> None:
    model, x, y = stack()
    data = [(x, y)] if targets else [x]
    result = optimize_blocks(model, data, remove=2, solutions=15, solver_seconds=0.2)
    losses = {t.removed: t.loss for t in result.tried}
    assert len(losses) == 15
    names = [b.name for b in find_blocks(model, (x,))]
    assert set(losses) == set(combinations(names, 2))
    assert result.loss_after == min(losses.values())
    with torch.no_grad():
        out = result.model(x)
        want = (
            F.cross_entropy(out, y)
            if targets
            else F.kl_div(
                out.log_softmax(1), model(x).log_softmax(1), log_target=True, reduction="batchmean"
            )
        )
    assert float(want) == pytest.approx(result.loss_after, rel=1e-4)


def test_few_selections_and_exchanges_find_a_good_one() -> None:
    model, x, y = stack()
    few = optimize_blocks(model, [(x, y)], remove=3, solutions=2, exchanges=0, solver_seconds=0.2)
    more = optimize_blocks(model, [(x, y)], remove=3, solutions=4, exchanges=5, solver_seconds=0.2)
    assert len(few.tried) == 2
    assert more.loss_after <= few.loss_after
    names = [b.name for b in find_blocks(model, (x,))]
    data = CalibrationSet.collect([(x, y)], torch.device("cpu"))
    loss = resolve_loss("cross_entropy", y)
    every = sorted(loss_without(model, c, data, loss, own=False) for c in combinations(names, 3))
    assert more.loss_after <= every[2]


def test_what_a_block_costs_alone_is_measured() -> None:
    model, x, y = stack()
    for alone in ("measured", "predicted"):
        result = optimize_blocks(
            model,
            [(x, y)],
            remove=1,
            alone=alone,  # type: ignore[arg-type]
            solutions=6,
            solver_seconds=0.2,
        )
        off = [abs(t.predicted - (t.loss - result.loss_before)) for t in result.tried]
        assert len(off) == 6
        assert (max(off) < 1e-6) is (alone == "measured")
    with pytest.raises(ShrinkingError, match="alone 'guessed'"):
        optimize_blocks(model, [(x, y)], remove=1, alone="guessed")  # type: ignore[arg-type]


def test_a_block_without_which_the_loss_is_no_number_stays() -> None:
    class Marked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(Residual(s) for s in (0.3, 1.0, 0.05, 0.6))
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = x
            for i, block in enumerate(self.blocks):
                before = h
                h = block(h)
                if i == 2:  # infinite where the block of least effect did nothing
                    h = h + 0.0 * (1.0 / (h - before).abs().sum())
            return self.head(h)

    torch.manual_seed(0)
    model = Marked().eval()
    x = torch.randn(100, 8)
    with torch.no_grad():
        y = model(x).argmax(1)
    result = optimize_blocks(
        model, [(x, y)], remove=2, solutions=2, exchanges=0, solver_seconds=0.2
    )
    assert "blocks.2" not in result.removed
    assert np.isfinite(result.loss_after)


def test_influence_is_how_far_a_block_turns_its_input() -> None:
    model, x, y = stack()
    blocks = find_blocks(model, (x,))
    data = CalibrationSet.collect([(x, y)], torch.device("cpu"))
    found = block_influence(model, blocks, data, chunk=64)
    with torch.no_grad():
        h = model[0](x)
        for block, value in zip(model[1], found, strict=True):
            out = block(h)
            want = 1 - F.cosine_similarity(h, out, dim=-1).mean()
            assert value == pytest.approx(float(want), rel=1e-3)
            h = out
    result = optimize_blocks(model, [(x, y)], remove=2, solutions=1, exchanges=0)
    least = {blocks[i].name for i in np.argsort(found)[:2]}
    assert least in [set(t.removed) for t in result.tried]


def test_gradient_and_curvature_are_those_of_the_gates() -> None:
    model, x, y = stack()
    blocks = find_blocks(model, (x,))
    data = CalibrationSet.collect([(x, y)], torch.device("cpu"))
    loss = resolve_loss("cross_entropy", y)
    g, H = gate_quadratic(model, blocks, data, loss, np.random.SeedSequence(0), own=False, chunk=64)

    def at(z: Tensor) -> Tensor:
        h = model[0](x)
        for block, gate in zip(model[1], z, strict=True):
            h = h + gate * (block(h) - h)
        return model[2](h)

    z = torch.ones(6, requires_grad=True)
    (want,) = torch.autograd.grad(F.cross_entropy(at(z), y), z)
    np.testing.assert_allclose(g, want.numpy(), rtol=1e-4, atol=1e-6)
    J = torch.autograd.functional.jacobian(at, torch.ones(6))  # (samples, classes, blocks)
    p = torch.softmax(at(torch.ones(6)).detach(), 1)
    middle = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    exact = (J.transpose(1, 2) @ middle @ J).mean(0).numpy()
    # one draw a sample: right within the scatter of 300 draws
    assert np.abs(H - exact).max() < 0.35 * np.abs(exact).max()


def test_bad_demands() -> None:
    model, x, y = stack()
    with pytest.raises(ShrinkingError, match="6 blocks cannot leave: the model has 6"):
        optimize_blocks(model, [(x, y)], remove=6)
    with pytest.raises(ShrinkingError, match="not a callable"):
        optimize_blocks(model, [(x, y)], remove=1, loss=lambda out, t: out.sum())
