"""What examples/run.toml names: a model, calibration data and a measure, on scikit-learn's digits.

Copy this file and put your own model and data in. Needs scikit-learn (``pip install
'optiprune[demo]'``).
"""

from __future__ import annotations

from functools import cache

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

SEED = 0


@cache
def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and test images, shape (n, 64) in [0, 1], and their digits; split by class."""
    images, digits = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(
        images / 16.0, digits, test_size=0.3, random_state=SEED, stratify=digits
    )
    return (
        torch.tensor(x, dtype=torch.float32),
        torch.tensor(y),
        torch.tensor(x_test, dtype=torch.float32),
        torch.tensor(y_test),
    )


def trained_model() -> nn.Module:
    """A 64-128-64-10 network, trained here in a second; yours would be loaded from a file."""
    x, y, _, _ = data()
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = nn.Sequential(
            nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(30):
            for index in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x[index]), y[index]).backward()
                optimizer.step()
    return model.eval()


def calibration() -> list[tuple[Tensor, Tensor]]:
    """Batches of (inputs, targets), all from the training set."""
    x, y, _, _ = data()
    return list(zip(x.split(256), y.split(256), strict=True))


@torch.no_grad()
def evaluate(model: nn.Module) -> dict[str, float]:
    """Accuracy and mean cross-entropy on the test set."""
    _, _, x, y = data()
    logits = model(x)
    return {
        "accuracy": float((logits.argmax(1) == y).double().mean()),
        "loss": float(nn.functional.cross_entropy(logits, y)),
    }
