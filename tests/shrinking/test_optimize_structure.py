"""Models that come out are within budget, exact, and better than ones chosen at random."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optiprune.shrinking import (
    SearchOptions,
    ShrinkingError,
    latency,
    optimize_structure,
    plot_sweep,
    refit_and_shrink,
    sweep_structure,
)
from optiprune.structure import Plan, find_structure, shrink
from optiprune.structure.timing import Measure


class Net(nn.Module):
    """A stem, a residual block, a grouped and a depthwise convolution, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 12, 3, padding=1)
        self.a = nn.Conv2d(12, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.b = nn.Conv2d(16, 12, 1)
        self.grouped = nn.Conv2d(12, 16, 3, padding=1, groups=2)
        self.deep = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.hidden = nn.Linear(16, 24)
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = x + self.b(torch.relu(self.norm(self.a(x))))
        x = torch.relu(self.deep(torch.relu(self.grouped(x))))
        return self.head(torch.relu(self.hidden(x.mean((2, 3)))))


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """Four kinds of stripes in noise; a minute's training in a second."""
    g = torch.Generator().manual_seed(0)
    y = torch.randint(4, (600,), generator=g)
    at = torch.arange(8.0)
    waves = [at[:, None] + 0 * at, at + 0 * at[:, None], at[:, None] + at, at[:, None] - at]
    x = torch.stack([torch.sin(1.6 * waves[int(k)]) for k in y])[:, None]
    x = x + 1.6 * torch.randn(x.shape, generator=g)
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval(), x, y


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((model(x).argmax(1) == y).float().mean())


@pytest.mark.parametrize("objective", ["reconstruction", "global"])
def test_a_budget_is_met_and_the_loss_kept(
    trained: tuple[nn.Module, Tensor, Tensor], objective: str
) -> None:
    model, x, y = trained
    before = copy.deepcopy(model.state_dict())
    result = optimize_structure(
        model,
        [(x, y)],
        macs=0.4,
        multiple=1,
        objective=objective,  # type: ignore[arg-type]
        # the quadratic in gates knows no refit: it is judged by what it predicts
        refit=objective == "reconstruction",
        solver_seconds=0.5,
        levels=4,
    )
    assert result.chosen.optimal
    assert 0.35 * result.before["macs"] < result.after["macs"] <= 0.4 * result.before["macs"]
    assert sum(p.numel() for p in result.model.parameters()) == result.after["parameters"]
    assert max(c.error for c in result.shrunk.compared) <= 1e-5
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    if objective == "reconstruction":
        assert accuracy(result.model, x, y) > accuracy(model, x, y) - 0.1
    # the smaller model is the one whose loss was reported
    with torch.no_grad():
        assert float(F.cross_entropy(result.model(x), y)) == pytest.approx(
            result.loss_after, rel=1e-4
        )
    # at random, at the same widths, and refitted where ours is
    structure = result.structure
    rng = np.random.default_rng(0)
    losses = []
    for _ in range(5):
        removed = {}
        for g in structure.groups:
            gone = g.size - result.widths[g.name]
            half = g.size // 2 if g.name in ("grouped", "stem") else 0
            if half:  # halves that groups of a convolution read or make lose equally many
                picks = [
                    *rng.permutation(half)[: gone // 2],
                    *(half + rng.permutation(half)[: gone // 2]),
                ]
            else:
                picks = list(rng.permutation(g.size)[:gone])
            removed[g.name] = [int(p) for p in picks]
        plan = Plan.of(structure, removed)
        if objective == "reconstruction":
            small = refit_and_shrink(model, plan, [(x, y)], structure=structure)
        else:
            small = shrink(model, plan, (x[:2],), structure=structure)
        with torch.no_grad():
            losses.append(float(F.cross_entropy(small.model(x), y)))
    assert result.loss_after < min(losses)


def test_the_same_seed_gives_the_same_model(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = trained
    options = {"parameters": 0.5, "objective": "global", "solutions": 3, "levels": 3}
    runs = [
        optimize_structure(model, [(x, y)], solver="tabu", solver_seconds=0.2, **options)  # type: ignore[arg-type]
        for _ in range(2)
    ]
    assert runs[0].widths == runs[1].widths
    assert len({t.plan.to_json() for t in runs[0].tried}) == 3
    assert [t.loss for t in runs[0].tried] == sorted(t.loss for t in runs[0].tried)


def test_widths_by_the_user_and_no_labels(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, _ = trained
    result = optimize_structure(model, [x], widths={"hidden": 9})
    assert result.model.hidden.weight.shape == (9, 16)
    assert result.loss_before == pytest.approx(0.0, abs=1e-6)
    assert result.loss_after > 0
    whole = optimize_structure(model, [x], macs=1.0)
    assert not whole.plan.removed
    assert whole.after == whole.before


def test_groups_that_are_excluded_stay_whole(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, _ = trained
    result = optimize_structure(
        model, [x], macs=0.8, multiple=1, exclude=["hidden", "stem"], levels=3
    )
    assert result.widths["hidden"] == 24
    assert result.widths["stem"] == 12
    assert result.after["macs"] <= 0.8 * result.before["macs"]


def test_memory_counts_what_is_held_at_one_time(
    trained: tuple[nn.Module, Tensor, Tensor],
) -> None:
    model, x, _ = trained
    result = optimize_structure(
        model, [x[:64]], memory=0.7, multiple=1, objective="reconstruction", levels=3
    )
    assert result.after["memory"] <= 0.7 * result.before["memory"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give a budget"),
        ({"macs": 0.5, "widths": {}}, "give a budget"),
        ({"macs": -1.0}, "a budget is a share"),
        ({"macs": 0.001}, "macs can fall to"),
        ({"macs": 0.5, "objective": "best"}, "there are 'reconstruction' and 'global'"),
        ({"widths": {"nowhere": 3}}, "no group is called 'nowhere'"),
        ({"widths": {"hidden": 0}}, "a multiple of 1, not 0"),
        ({"widths": {"grouped": 7}}, "a multiple of 2, not 7"),
        ({"macs": 0.5, "include": ["nowhere*"]}, "matches no group"),
        ({"macs": 0.5, "multiple": 0}, "must be at least 1"),
        ({"macs": 0.5, "width_solver": "nosuch", "levels": 2}, "Pyomo has no solver"),
    ],
)
def test_bad_demands(
    trained: tuple[nn.Module, Tensor, Tensor], options: dict[str, object], message: str
) -> None:
    model, x, y = trained
    with pytest.raises(ShrinkingError, match=message):
        optimize_structure(model, [(x[:32], y[:32])], **options)  # type: ignore[arg-type]


def test_a_model_without_groups_says_so() -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    assert not find_structure(model, (torch.randn(2, 4),)).groups
    with pytest.raises(ShrinkingError, match="no group of units"):
        optimize_structure(model, [torch.randn(8, 4)], macs=0.5)


def test_a_sweep_measures_once_and_is_drawn(
    trained: tuple[nn.Module, Tensor, Tensor], tmp_path: Path
) -> None:
    model, x, y = trained
    options = SearchOptions(levels=3)
    results = sweep_structure(model, [(x, y)], values=(0.8, 0.5), multiple=1, options=options)
    assert [
        r.after["macs"] <= s * r.before["macs"] for r, s in zip(results, (0.8, 0.5), strict=True)
    ]
    alone = optimize_structure(model, [(x, y)], macs=0.5, multiple=1, levels=3)
    assert results[1].widths == alone.widths
    assert results[1].plan.to_json() == alone.plan.to_json()
    for name, score in (("loss.png", None), ("accuracy.png", lambda m: accuracy(m, x, y))):
        plot_sweep(results, tmp_path / name, score=score, score_before=1.0)
        assert (tmp_path / name).stat().st_size > 5000
    with pytest.raises(ShrinkingError, match="nothing to draw over 'latency'"):
        plot_sweep(results, tmp_path / "x.png", cost="latency")


def test_latency_stays_within_its_budget(
    trained: tuple[nn.Module, Tensor, Tensor],
    work_clock: Measure,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x, _ = trained
    options = {"multiple": 1, "levels": 2, "minimum": 0.0}
    # the real clock: a model this small is mostly overhead, which no width saves
    timed = optimize_structure(model, [x], latency=1.0, **options)
    assert 0 < timed.after["latency"] <= timed.before["latency"] * (1 + 1e-6)
    monkeypatch.setattr(latency, "alternated", lambda a, b, repeats: work_clock(a, b))
    result = optimize_structure(model, [x], latency=0.4, **options)
    assert result.before["latency"] == pytest.approx(2e-9 * result.before["macs"])
    assert result.after["latency"] <= 0.4 * result.before["latency"] * (1 + 1e-6)
    assert result.after["latency"] <= 0.85 * result.before["latency"] * (1 + 1e-6)
    assert result.plan.removed
    with pytest.raises(ShrinkingError, match="it is a share"):
        optimize_structure(model, [x], latency=2.0, levels=2)
