"""Train the benchmark networks on Fashion-MNIST, once: checkpoints are cached.

    python -m benchmarks.models mlp-784-512-512-10 --seeds 0 1 2

writes benchmarks/cache/<name>-seed<seed>.safetensors and prints, for each, the test accuracy dense
and after global magnitude pruning. A checkpoint remembers its recipe; another recipe trains anew.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from .fashion_mnist import data
from .networks import NETWORKS, build, takes_flat_input

__all__ = [
    "CACHE",
    "RECIPES",
    "OneCycle",
    "Recipe",
    "accuracy",
    "load_trained",
    "magnitude_prune",
    "train",
]

CACHE = Path(__file__).resolve().parent.parent / "cache"


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: Adam, cross-entropy, constant rate and then a linear decay to 0.

    Attributes
    ----------
    epochs, batch : passes over the 60,000 training images, images a step
    rate : Adam's learning rate before the decay
    decay_from : fraction of the steps after which the rate begins to fall
    """

    epochs: int
    batch: int
    rate: float
    decay_from: float = 0.5

    def optimizer(self, model: nn.Module) -> Optimizer:
        return torch.optim.Adam(model.parameters(), lr=self.rate)

    def schedule(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        decay_from = self.decay_from * steps
        return LambdaLR(optimizer, lambda t: min(1.0, max(0.0, (steps - t) / (steps - decay_from))))

    def images(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        return batch


@dataclass(frozen=True)
class OneCycle:
    """How a network is trained: SGD with Nesterov momentum 0.9 in channels-last layout, images
    flipped left to right half of the time, the rate rising over the first fifth of the steps and
    then falling to about zero.

    Smith, Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning
    Rates" (2017, arXiv:1708.07120).

    Attributes
    ----------
    epochs, batch : passes over the 60,000 training images, images a step
    peak : the highest learning rate
    weight_decay : of all parameters
    """

    epochs: int
    batch: int
    peak: float
    weight_decay: float

    def optimizer(self, model: nn.Module) -> Optimizer:
        model.to(memory_format=torch.channels_last)
        return torch.optim.SGD(
            model.parameters(),
            lr=self.peak,
            momentum=0.9,
            nesterov=True,
            weight_decay=self.weight_decay,
        )

    def schedule(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        return OneCycleLR(optimizer, self.peak, total_steps=steps, pct_start=0.2)

    def images(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        flip = torch.rand(len(batch), generator=generator) < 0.5
        flipped = torch.where(flip[:, None, None, None], batch.flip(3), batch)
        return flipped.contiguous(memory_format=torch.channels_last)


RECIPES: dict[str, Recipe | OneCycle] = {
    "mlp-784-512-512-10": Recipe(epochs=8, batch=512, rate=1e-3, decay_from=0.75),
    "lenet-300-100": Recipe(epochs=8, batch=128, rate=1e-3),
    "cnn-32-64-fc128": Recipe(epochs=3, batch=128, rate=2e-3),
    "resnet20": OneCycle(epochs=5, batch=128, peak=0.1, weight_decay=5e-4),
}


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """Run with n torch threads: the order of sums, so the weights too, depends on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def accuracy(model: nn.Module, X: Tensor, y: Tensor, batch: int = 2000) -> float:
    """Share of right answers (0 .. 1) in eval mode; the training mode is restored."""
    was_training = model.training
    model.eval()
    try:
        pairs = zip(X.split(batch), y.split(batch), strict=True)
        right = sum(int((model(a).argmax(1) == b).sum()) for a, b in pairs)
    finally:
        model.train(was_training)
    return right / len(y)


def train(name: str, seed: int, recipe: Recipe | OneCycle) -> nn.Module:
    """Train one network from scratch. Same name, seed, recipe and machine: same weights."""
    model = build(name, seed)
    X, y = data("train", flat=takes_flat_input(name))
    order = torch.Generator().manual_seed(seed + 10_000)
    optimizer = recipe.optimizer(model)
    schedule = recipe.schedule(optimizer, recipe.epochs * -(-len(X) // recipe.batch))
    model.train()
    with _threads(1):
        for _ in range(recipe.epochs):
            for index in torch.randperm(len(X), generator=order).split(recipe.batch):
                optimizer.zero_grad(set_to_none=True)
                images = recipe.images(X[index], order)
                nn.functional.cross_entropy(model(images), y[index]).backward()
                optimizer.step()
                schedule.step()
    return model.to(memory_format=torch.contiguous_format).eval()


def _fingerprint(name: str, seed: int, recipe: Recipe | OneCycle) -> str:
    return json.dumps({"name": name, "seed": seed, **asdict(recipe)}, sort_keys=True)


def load_trained(name: str, seed: int = 0, *, cache: Path = CACHE) -> nn.Module:
    """The trained network in eval mode, from the cache or trained now (about a minute; ResNet20
    takes some 20).

    Raises
    ------
    ValueError
        An unknown name.
    DatasetNotFoundError
        Training is needed and Fashion-MNIST is not installed.
    """
    if name not in RECIPES:
        raise ValueError(f"no recipe for {name!r}; known: {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    fingerprint = _fingerprint(name, seed, recipe)
    path = cache / f"{name}-seed{seed}.safetensors"
    if path.exists():
        with safe_open(path, framework="pt") as f:
            if (f.metadata() or {}).get("recipe") == fingerprint:
                model = build(name, seed)
                model.load_state_dict({k: f.get_tensor(k) for k in f.keys()})  # noqa: SIM118
                return model.eval()
    model = train(name, seed, recipe)
    cache.mkdir(parents=True, exist_ok=True)
    # A reader, or a second trainer, never sees half a file.
    part = path.with_suffix(f".{os.getpid()}.part")
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(state, part, metadata={"recipe": fingerprint})
    os.replace(part, path)
    return model


@torch.no_grad()
def magnitude_prune(model: nn.Module, density: float) -> None:
    """Zero, in place, all but the ``density`` largest weights of all layers together (biases and
    batch-norm parameters stay)."""
    weights = [p for name, p in model.named_parameters() if p.ndim > 1]
    flat = torch.cat([w.abs().flatten() for w in weights])
    keep = torch.zeros_like(flat, dtype=torch.bool)
    keep[flat.topk(round(density * flat.numel())).indices] = True
    for w, m in zip(weights, keep.split([w.numel() for w in weights]), strict=True):
        w.mul_(m.view_as(w))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(RECIPES), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    for name in args.names:
        if name not in NETWORKS:
            parser.error(f"no network {name!r}; known: {', '.join(NETWORKS)}")
    densities = (0.5, 0.2, 0.1, 0.05)
    print(
        "network              seed  seconds  dense  " + "  ".join(f"{d:>5.0%}" for d in densities)
    )
    for name in args.names:
        X, y = data("test", flat=takes_flat_input(name))
        for seed in args.seeds:
            start = time.perf_counter()
            model = load_trained(name, seed)
            seconds = time.perf_counter() - start
            row = [accuracy(model, X, y)]
            for density in densities:
                pruned = build(name, seed)
                pruned.load_state_dict(model.state_dict())
                magnitude_prune(pruned, density)
                row.append(accuracy(pruned, X, y))
            values = "  ".join(f"{100 * a:5.2f}" for a in row)
            print(f"{name:<20} {seed:>4}  {seconds:7.1f}  {values}", flush=True)


if __name__ == "__main__":
    main()
