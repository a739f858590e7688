"""A small network trained on scikit-learn's digits, once for all integration tests."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn


class Digits:
    """Trained network (give out copies) and its data."""

    def __init__(self) -> None:
        x, y = load_digits(return_X_y=True)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        self.x = torch.tensor(x / 16.0, dtype=torch.float32)[order]
        self.y = torch.tensor(y)[order]
        self.train = (self.x[:1300], self.y[:1300])
        self.test = (self.x[1300:], self.y[1300:])
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self._model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
            optimizer = torch.optim.Adam(self._model.parameters(), 3e-3)
            for _ in range(30):
                for i in range(0, 1300, 100):
                    optimizer.zero_grad()
                    loss = F.cross_entropy(self._model(self.x[i : i + 100]), self.y[i : i + 100])
                    loss.backward()
                    optimizer.step()
            optimizer.zero_grad()

    def model(self) -> nn.Sequential:
        return copy.deepcopy(self._model)

    def accuracy(self, model: nn.Module) -> float:
        x, y = self.test
        with torch.no_grad():
            return float((model(x).argmax(1) == y).float().mean())

    def loss(self, model: nn.Module) -> float:
        x, y = self.test
        with torch.no_grad():
            return float(F.cross_entropy(model(x), y))


@pytest.fixture(scope="session")
def digits() -> Digits:
    return Digits()


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}
