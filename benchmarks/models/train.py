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

from .fashion_mnist import data
from .networks import NETWORKS, build, takes_flat_input

__all__ = ["CACHE", "RECIPES", "Recipe", "accuracy", "load_trained", "magnitude_prune", "train"]

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


RECIPES = {
    "mlp-784-512-512-10": Recipe(epochs=8, batch=512, rate=1e-3, decay_from=0.75),
    "lenet-300-100": Recipe(epochs=8, batch=128, rate=1e-3),
    "cnn-32-64-fc128": Recipe(epochs=3, batch=128, rate=2e-3),
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


def train(name: str, seed: int, recipe: Recipe) -> nn.Sequential:
    """Train one network from scratch. Same name, seed, recipe and machine: same weights."""
    model = build(name, seed)
    X, y = data("train", flat=takes_flat_input(name))
    order = torch.Generator().manual_seed(seed + 10_000)
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.rate)
    steps = recipe.epochs * -(-len(X) // recipe.batch)
    decay_from = recipe.decay_from * steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda t: min(1.0, max(0.0, (steps - t) / (steps - decay_from)))
    )
    model.train()
    with _threads(1):
        for _ in range(recipe.epochs):
            for index in torch.randperm(len(X), generator=order).split(recipe.batch):
                optimizer.zero_grad(set_to_none=True)
                nn.functional.cross_entropy(model(X[index]), y[index]).backward()
                optimizer.step()
                schedule.step()
    return model.eval()


def _fingerprint(name: str, seed: int, recipe: Recipe) -> str:
    return json.dumps({"name": name, "seed": seed, **asdict(recipe)}, sort_keys=True)


def load_trained(name: str, seed: int = 0, *, cache: Path = CACHE) -> nn.Sequential:
    """The trained network in eval mode, from the cache or trained now (about a minute).

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
