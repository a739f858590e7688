"""Which baseline is ahead of which, as their papers say, on trained networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks.models import data, load_trained
from benchmarks.models.fashion_mnist import DatasetNotFoundError, directory
from benchmarks.quality.baselines.chita import Chita
from benchmarks.quality.baselines.global_magnitude import GlobalMagnitude
from benchmarks.quality.baselines.icbs import ICBS
from benchmarks.quality.baselines.model_method import ModelMethod
from benchmarks.quality.baselines.refitted import Refitted
from benchmarks.quality.baselines.woodfisher import WoodFisher
from optiprune.curvature import CalibrationSet, find_layers
from optiprune.curvature.losses import cross_entropy


def loss_after(
    method: ModelMethod,
    model: nn.Module,
    calibration: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor],
    density: float,
) -> float:
    _, values = method.prune(
        model,
        find_layers(model),
        CalibrationSet.collect([calibration], torch.device("cpu")),
        density=density,
        loss=cross_entropy,
        seed=np.random.SeedSequence(0),
        seconds=None,
    )
    with torch.no_grad():
        return float(cross_entropy(functional_call(model, values, held_out[0]), held_out[1]))


def digits() -> tuple[nn.Module, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    inputs = torch.tensor(x / 16.0, dtype=torch.float32)[order]
    labels = torch.tensor(y)[order]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(300):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[:1300]), labels[:1300]).backward()
            optimizer.step()
    return model.eval(), (inputs[:1300], labels[:1300]), (inputs[1300:], labels[1300:])


def test_order_on_digits():
    """Joint choice beats magnitude; many stages beat one (CHITA's paper)."""
    model, calibration, held_out = digits()
    small = {"samples": 200, "ridge": 1e-2}
    losses = {
        method.name: loss_after(method, model, calibration, held_out, 0.1)
        for method in (
            GlobalMagnitude(),
            Chita(name="chita", stages=1, **small),
            Chita(stages=6, **small),
            WoodFisher(stages=6, samples=200, block=500, damping=1e-2),
            ICBS(block=128, epochs=1, steps=20, samples=200),
            Refitted(GlobalMagnitude()),
        )
    }
    magnitude = losses["global-magnitude"]
    assert losses["icbs"] < 0.7 * magnitude
    assert losses["global-magnitude+refit"] < 0.8 * magnitude
    assert losses["chita-multi"] < 0.8 * magnitude
    assert losses["chita-multi"] < losses["chita"]
    assert losses["chita-multi"] < losses["woodfisher"]


@pytest.mark.slow
def test_order_on_a_trained_network():
    if not (directory() / "train-images-idx3-ubyte.gz").exists():
        pytest.skip("Fashion-MNIST is not installed")
    try:
        model = load_trained("lenet-300-100", 0)
    except DatasetNotFoundError as e:
        pytest.skip(str(e))
    x, y = data("train")
    calibration, held_out = (x[:2000], y[:2000]), data("test")
    losses = {
        method.name: loss_after(method, model, calibration, held_out, 0.05)
        for method in (
            GlobalMagnitude(),
            Chita(stages=6, samples=200),
            ICBS(epochs=1, steps=40),
            Refitted(GlobalMagnitude()),
        )
    }
    magnitude = losses.pop("global-magnitude")
    assert all(loss < 0.7 * magnitude for loss in losses.values()), (magnitude, losses)
