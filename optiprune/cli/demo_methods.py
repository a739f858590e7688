"""The network of the demo, and the ways to prune it: two known rules, and this engine twice."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from optiprune.api import optimize_masks

__all__ = ["Digits", "MethodResult", "magnitude", "run_methods", "train", "wanda"]

BATCH = 128
# one thread as for the other rows, batches that suit 50 thousand weights; all else as it comes
SEARCH = {"threads": 1, "batches": {"size": 512, "steps": 60}}


@dataclass(frozen=True, slots=True)
class Digits:
    """Images (n, 64) float32 in [0, 1] and digits (n,), split by class into train and test."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor

    @classmethod
    def load(cls, seed: int) -> Digits:
        images, digits = load_digits(return_X_y=True)
        x, x_test, y, y_test = train_test_split(
            images / 16.0, digits, test_size=0.3, random_state=seed, stratify=digits
        )
        return cls(
            torch.tensor(x, dtype=torch.float32),
            torch.tensor(y),
            torch.tensor(x_test, dtype=torch.float32),
            torch.tensor(y_test),
        )

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """The training set as calibration data."""
        return list(zip(self.x.split(BATCH), self.y.split(BATCH), strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class MethodResult:
    """One row of the demo's table.

    Attributes
    ----------
    density : share of the weights (biases left out) that are not zero
    accuracy, loss : on the test set, which no method sees
    seconds : time to prune; for the dense network, to train
    kept_per_pixel : (8, 8) share of the first layer's weights on each pixel that are kept
    """

    name: str
    density: float
    accuracy: float
    loss: float
    seconds: float
    kept_per_pixel: npt.NDArray[np.float64]


def run_methods(sparsity: float, seed: int) -> Iterator[MethodResult]:
    """The dense network, then each method on a copy of it, as they finish.

    Deterministic for a seed, but for the seconds. Everything runs in one thread: sums come in the
    same order on every machine, and a network this small is slower in many.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from _rows(sparsity, seed)
    finally:
        torch.set_num_threads(threads)


def _rows(sparsity: float, seed: int) -> Iterator[MethodResult]:
    digits = Digits.load(seed)
    started = time.perf_counter()
    dense = train(digits, seed)
    yield _measure("dense", dense, digits, time.perf_counter() - started)

    for name, method in (("magnitude", magnitude), ("Wanda", wanda)):
        model = copy.deepcopy(dense)
        started = time.perf_counter()
        method(model, digits.x, sparsity)
        yield _measure(name, model, digits, time.perf_counter() - started)

    for name, refit in (("ours, mask only", False), ("ours, with refit", True)):
        model = copy.deepcopy(dense)
        started = time.perf_counter()
        optimize_masks(
            model,
            digits.batches(),
            sparsity=sparsity,
            objective="global",
            refit=refit,
            seed=seed,
            config=SEARCH,
        )
        yield _measure(name, model, digits, time.perf_counter() - started)


def train(digits: Digits, seed: int, epochs: int = 40) -> nn.Sequential:
    """A 64-256-128-10 ReLU network; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, weight_decay=1e-4)
        for _ in range(epochs):
            for index in torch.randperm(len(digits.x)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(digits.x[index]), digits.y[index]).backward()
                optimizer.step()
    return model.eval()


@torch.no_grad()
def magnitude(model: nn.Sequential, x: Tensor, sparsity: float) -> None:
    """Zero the smallest ``|w|`` of the whole network (Han et al. 2015, arXiv 1506.02626)."""
    weights = [m.weight for m in model if isinstance(m, nn.Linear)]
    size = torch.cat([w.abs().flatten() for w in weights])
    keep = torch.zeros_like(size, dtype=torch.bool)
    keep[size.topk(round((1 - sparsity) * size.numel())).indices] = True
    for w, mask in zip(weights, keep.split([w.numel() for w in weights]), strict=True):
        w.mul_(mask.view_as(w))


@torch.no_grad()
def wanda(model: nn.Sequential, x: Tensor, sparsity: float) -> None:
    """Zero the smallest ``|w_ij| * ||x_j||`` of each output row (arXiv 2306.11695).

    Inputs are those of the dense network, as within a block in the paper; after pruned layers, of
    which this network would be a block each, a tenth of the weights gives 10 % accuracy.
    """
    for module in model:
        outputs = module(x)
        if isinstance(module, nn.Linear):
            score = module.weight.abs() * x.norm(dim=0)
            kept = round((1 - sparsity) * score.shape[1])
            mask = torch.zeros_like(score, dtype=torch.bool)
            mask.scatter_(1, score.topk(kept, dim=1).indices, True)
            module.weight.mul_(mask)
        x = outputs


@torch.no_grad()
def _measure(name: str, model: nn.Sequential, digits: Digits, seconds: float) -> MethodResult:
    logits = model(digits.x_test)
    weights = [m.weight for m in model if isinstance(m, nn.Linear)]
    nonzero = sum(int(w.count_nonzero()) for w in weights)
    kept = (weights[0] != 0).double().mean(dim=0).view(8, 8)
    return MethodResult(
        name=name,
        density=nonzero / sum(w.numel() for w in weights),
        accuracy=float((logits.argmax(1) == digits.y_test).double().mean()),
        loss=float(nn.functional.cross_entropy(logits, digits.y_test)),
        seconds=seconds,
        kept_per_pixel=kept.numpy(),
    )
