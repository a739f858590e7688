"""Plans: what they say, that they change nothing, and that too large a run is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from optiprune import optimize_masks, plan_masks
from optiprune.planning import RunPlan, TooLargeError, available_bytes
from optiprune.planning import estimate as estimate_module

TINY: dict[str, Any] = {"threads": 1, "curvature": {"samples": 40, "gradient_samples": 100}}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Flatten(),
        nn.Linear(128, 16),
        nn.ReLU(),
        nn.Linear(16, 4),
    ).eval()


def data() -> list[torch.Tensor]:
    return [torch.randn(120, 1, 8, 8, generator=torch.Generator().manual_seed(1))]


def plan(**prune: Any) -> RunPlan:
    return plan_masks(network(), data(), config={**TINY, "prune": prune}, sparsity=0.5)


@pytest.mark.parametrize(
    ("prune", "kinds"),
    [
        ({"objective": "reconstruction"}, {"best subset of a row"}),
        ({"objective": "reconstruction", "refit": False}, {"cardinality"}),
        ({"objective": "reconstruction", "pattern": "2:4"}, None),
        ({"objective": "reconstruction", "pattern": "block:1x4"}, None),
        ({"objective": "reconstruction", "pattern": "block:4x4"}, None),
        ({"objective": "reconstruction", "pattern": "block:4x4", "refit": False}, None),
        ({"objective": "reconstruction", "scope": "global"}, None),
        ({"objective": "global", "loss": "kl"}, {"batch over all layers"}),
    ],
)
def test_every_kind_of_run_has_a_plan(prune: dict[str, Any], kinds: set[str] | None) -> None:
    if "pattern" in prune:
        included = {"layers": {"include": ["4", "6"]}}
        found = plan_masks(
            network(), data(), config={**TINY, **included, "prune": prune}, sparsity=0.5
        )
    else:
        found = plan(**prune)
    if kinds is not None:
        assert {x.kind for x in found.layers} == kinds
    for x in found.layers:
        assert x.total > 0
        assert x.problems > 0
        assert x.kept is None or 0 < x.kept <= x.total
        assert x.seconds >= 0
    assert found.samples + found.holdout_samples == 120
    assert found.needed > 0
    assert found.total_seconds > 0
    assert all(v >= 0 for v in found.memory.values())
    found.require_memory()


def test_arguments_are_those_of_optimize_masks() -> None:
    found = plan_masks(
        network(),
        data(),
        config=TINY,
        sparsity=0.5,
        objective="reconstruction",
        refit=False,
        pattern="2:4",
        include=["4", "6"],
        exclude=["6"],
    )
    assert [x.name for x in found.layers] == ["4"]
    assert found.layers[0].kept == 128 * 16 // 2
    assert found.objective == "reconstruction"


def test_nothing_is_changed() -> None:
    config = {**TINY, "prune": {"objective": "reconstruction"}}
    model, other = network(), network()
    plan_masks(model, data(), config=config, sparsity=0.5)
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())
    optimize_masks(model, data(), config=config, sparsity=0.5)
    optimize_masks(other, data(), config=config, sparsity=0.5)
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())


def test_moments_are_counted() -> None:
    found = plan(objective="reconstruction")
    by_name = {x.name: x for x in found.layers}
    # fit, judge and held-out samples; pruned inputs, dense inputs, and between them; float64
    assert by_name["4"].gram == 3 * 3 * 128**2 * 8
    assert by_name["2"].gram == 3 * 3 * 8 * 9**2 * 8


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 24), nn.Linear(24, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(torch.relu(self.first(x)))


@pytest.mark.parametrize("epochs", [0, 1])
def test_the_tuning_of_a_block_is_counted(epochs: int) -> None:
    model = nn.Sequential(*(Residual() for _ in range(3))).eval()
    window = {"epochs": epochs, "batch": 1500}
    prune = {"objective": "reconstruction"}
    config = {"threads": 1, "curvature": {"chunk": 8}, "window": window, "prune": prune}
    found = plan_masks(model, [torch.randn(2000, 12)], config=config, sparsity=0.5)
    # leaves, gradients, two moments, the best so far; 7 times the outputs of 1500 samples; float32
    tuning = 5 * 4 * 2 * 12 * 24 + 7 * 4 * 1500 * (24 + 12)
    assert found.memory.get("tuning of a block") == (tuning if epochs else None)


def test_too_large_a_run_is_refused_with_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate_module, "available_bytes", lambda device: 2**20)
    found = plan(objective="reconstruction")
    with pytest.raises(TooLargeError, match=r"needs about 0\.\d GiB more .* 0\.0 GiB are"):
        found.require_memory()
    model = network()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(TooLargeError, match="most of it is for the largest layer"):
        optimize_masks(model, data(), config=TINY, sparsity=0.5, objective="reconstruction")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_memory_of_a_container(tmp_path: Path) -> None:
    free = available_bytes(root=tmp_path)
    assert free > 0
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("2500000\n")
    (tmp_path / "memory.stat").write_text("anon 1\nactive_file 50000\ninactive_file 150000\n")
    assert available_bytes(root=tmp_path) == 700_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_bytes(root=tmp_path) > 700_000
