"""Whole prunes of a convolutional net, of dict and tuple inputs, and of Fashion-MNIST."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.models.fashion_mnist import DatasetNotFoundError, data, directory
from optiprune import Config, optimize_masks

FAST = Config.from_table(
    {
        "threads": 1,
        "batches": {"size": 256, "steps": 8},
        "curvature": {"samples": 300, "gradient_samples": 600},
    }
)


def fit(model: nn.Module, x: Tensor, y: Tensor, epochs: int, rate: float = 3e-3) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        optimizer = torch.optim.Adam(model.parameters(), rate)
        for _ in range(epochs):
            for index in torch.randperm(len(x)).split(100):
                optimizer.zero_grad()
                F.cross_entropy(model(x[index]), y[index]).backward()
                optimizer.step()
        optimizer.zero_grad()


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((model.eval()(x).argmax(1) == y).float().mean())


@pytest.fixture(scope="module")
def convnet(digits: Any) -> dict[str, Tensor]:
    model = build_convnet()
    fit(model, digits.train[0].reshape(-1, 1, 8, 8), digits.train[1], epochs=8)
    return model.state_dict()


def build_convnet() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 16, 3, stride=2, padding=1, groups=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(256, 10),
        )


@pytest.mark.parametrize("objective", ["global", "reconstruction"])
@pytest.mark.parametrize("refit", [True, False])
def test_convolutional_net(
    digits: Any, convnet: dict[str, Tensor], objective: str, refit: bool
) -> None:
    model = build_convnet()
    model.load_state_dict(convnet)
    model.train()  # as a user may leave it: batch norm must behave as in evaluation all the same
    x, y = digits.x.reshape(-1, 1, 8, 8), digits.y
    result = optimize_masks(
        model,
        [(x[:700], y[:700]), (x[700:1300], y[700:1300])],
        sparsity=0.6,
        objective=objective,
        refit=refit,
        config=FAST,
    )
    assert model.training
    assert set(result.masks) == {"0.weight", "3.weight", "6.weight"}
    assert result.density == pytest.approx(0.4, abs=0.01)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, convnet[name])
    assert accuracy(model, x[1300:], y[1300:]) > 0.85


class TwoInputs(nn.Module):
    """Takes tensors by keyword, returns a dict, as Transformers models do."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(32, 24), nn.Linear(32, 24)
        self.head = nn.Linear(24, 10)

    def forward(self, a: Tensor, b: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.head(torch.relu(self.left(a) + self.right(b)))
        out = {"logits": logits}
        if labels is not None:
            out["loss"] = F.cross_entropy(logits, labels)
        return out


@pytest.mark.parametrize("form", ["dict with labels", "tuple and targets", "dict and targets"])
def test_dict_and_tuple_inputs(digits: Any, form: str) -> None:
    torch.manual_seed(0)
    model = TwoInputs()
    x, y = digits.train
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model(x[:, :32], x[:, 32:], y)["loss"].backward()
        optimizer.step()
    batch: Any
    if form == "dict with labels":
        batch = {"a": x[:, :32], "b": x[:, 32:], "labels": y}
    elif form == "tuple and targets":
        batch = ((x[:, :32], x[:, 32:]), y)
    else:
        batch = ({"a": x[:, :32], "b": x[:, 32:]}, y)
    result = optimize_masks(
        model, [batch], sparsity=0.8, objective="global", refit=True, config=FAST
    )
    assert result.report.loss_final < result.report.loss_initial
    tx, ty = digits.test
    with torch.no_grad():
        logits = model(tx[:, :32], tx[:, 32:])["logits"]
    assert float((logits.argmax(1) == ty).float().mean()) > 0.8


def installed() -> bool:
    try:
        directory()
    except DatasetNotFoundError:
        return False
    return True


@pytest.mark.skipif(not installed(), reason="apt install dataset-fashion-mnist")
def test_fashion_mnist() -> None:
    x, y = data("train")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
    fit(model, x[:10000], y[:10000], epochs=3, rate=1e-3)
    tx, ty = data("test")
    dense = accuracy(model, tx, ty)
    result = optimize_masks(
        model, [(x[:4000], y[:4000])], sparsity=0.9, objective="global", refit=True, config=FAST
    )
    assert result.density == pytest.approx(0.1, abs=1e-3)
    assert dense > 0.8
    assert accuracy(model, tx, ty) > dense - 0.03
