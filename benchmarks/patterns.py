"""Layer error and accuracy with a pattern: Wanda, ADMM and the sweeps, each with the same refit.

    python -m benchmarks.patterns [--patterns 2:4 4:8 1:4 block:1x8] [--seeds 0 1 2]

A 784-512-512-10 network on Fashion-MNIST (trained on the first run, cached), 4000 training images
to calibrate, a quarter of them held out; accuracy on the 10,000 test images. The layer error is
that of each layer's outputs on the held-out images, over the mean square of the dense outputs, the
layers before it pruned too. Writes benchmarks/results/patterns.md.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.machine import describe
from benchmarks.models import data, load_trained
from optiprune import optimize_masks

NETWORK = "mlp-784-512-512-10"
IMAGES = 4000
RESULT = Path(__file__).parent / "results" / "patterns.md"
# name -> (refit, config); without refit kept weights keep their values: a table of its own
METHODS: dict[str, tuple[bool, dict[str, Any]]] = {
    "Wanda + refit": (True, {"joint": {"enabled": False}, "batches": {"sweeps": 0}}),
    "ADMM + refit": (True, {"joint": {"sweeps": 0}}),
    "ours (default)": (True, {}),
    "mask only: Wanda": (False, {"batches": {"sweeps": 0}}),
    "mask only: ours": (False, {}),
}


def accuracy(model: nn.Module) -> float:
    images, labels = data("test")
    with torch.no_grad():
        return 100.0 * float((model(images).argmax(1) == labels).double().mean())


def measure(
    pattern: str, seed: int, refit: bool, config: dict[str, Any]
) -> tuple[list[float], float, float]:
    """(relative held-out error of each layer in %, accuracy in %, CPU seconds)."""
    model = copy.deepcopy(load_trained(NETWORK, seed))
    images, _ = data("train")
    # one block has no density of its own: that of 1:4
    sparsity = 0.75 if pattern.startswith("block") else 0.5
    began = time.process_time()
    result = optimize_masks(
        model,
        [images[:IMAGES]],
        pattern=pattern,
        sparsity=sparsity,
        objective="reconstruction",
        refit=refit,
        seed=seed,
        config={"threads": 1, "tune": {"epochs": 0}, **config},
    )
    seconds = time.process_time() - began
    result.masks.check_pattern(pattern)
    errors = []
    for layer in result.report.layers:
        error = layer.holdout_refit if refit else layer.holdout_masked
        errors.append(100.0 * error / dense_energy(seed, layer.name))
    return errors, accuracy(model), seconds


@cache
def dense_energy(seed: int, name: str) -> float:
    """Mean square of a layer's dense output without bias, on the calibration images."""
    model = load_trained(NETWORK, seed)
    images, _ = data("train")
    layer = model.get_submodule(name)
    seen: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda m, i, o: seen.append(o - m.bias))
    with torch.no_grad():
        model(images[:IMAGES])
    handle.remove()
    return float(seen[0].double().square().sum(1).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patterns", nargs="+", default=["2:4", "4:8", "1:4", "block:1x8"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    dense = statistics.median(accuracy(load_trained(NETWORK, seed)) for seed in args.seeds)
    lines = [
        "# Patterns",
        "",
        "Made by `python -m benchmarks.patterns`: medians over networks of seeds "
        f"{', '.join(map(str, args.seeds))}; held-out error of each layer's outputs in % of the "
        "mean square of the dense outputs, each layer on the inputs that the pruned layers before "
        f"it give; accuracy in % on test images (dense {dense:.2f}); CPU seconds for the "
        "whole network, one thread. `block:1x8` is at 25 % density.",
        "",
        "| pattern | masks by | fc1 | fc2 | fc3 | accuracy | CPU seconds |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for pattern in args.patterns:
        for name, (refit, config) in METHODS.items():
            runs = [measure(pattern, seed, refit, config) for seed in args.seeds]
            layers = [statistics.median(e) for e in zip(*(r[0] for r in runs), strict=True)]
            cells = " | ".join(f"{e:.3g}" for e in layers)
            right, took = (statistics.median(r[i] for r in runs) for i in (1, 2))
            lines.append(f"| {pattern} | {name} | {cells} | {right:.2f} | {took:.1f} |")
            print(lines[-1], flush=True)
    lines += ["", *(f"- {key}: {value}" for key, value in describe().items()), ""]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
