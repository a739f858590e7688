"""What tuning the kept weights brings after masks and refit, and allocated densities, beside ALPS.

    python -m benchmarks.tuning [--densities 0.1 0.05 0.02] [--seeds 0 1 2]

A 784-512-512-10 network on Fashion-MNIST (trained on the first run, cached): reconstruction with
refit on 6000 training images without labels, a quarter of them held out; the tuning's targets are
the dense network's outputs. ALPS with a least-squares refit has the same budget in every layer and
all 6000 images. Measured on the 10,000 test images. One thread; seconds are CPU time.
Writes benchmarks/results/tuning.md.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.machine import describe
from benchmarks.models import accuracy, data, load_trained
from benchmarks.quality.baselines import LAYER_METHODS, LayerBudget
from benchmarks.quality.baselines.layerwise import prune_layerwise
from optiprune import optimize_masks
from optiprune.curvature import CalibrationSet, find_layers

NETWORK = "mlp-784-512-512-10"
RESULTS = Path(__file__).parent / "results"
TUNE = {"epochs": 20, "learning_rate": 1e-2}
KNAPSACK = {"method": "knapsack"}
ALPS = "ALPS + refit"
METHODS: dict[str, dict[str, Any]] = {
    ALPS: {},
    "refit (default)": {},
    "refit, tuned": {"tune": TUNE},
    "knapsack, refit": {"allocation": KNAPSACK},
    "knapsack, refit, tuned": {"allocation": KNAPSACK, "tune": TUNE},
}


def prune(model: nn.Module, images: Tensor, seed: int, density: float, method: str) -> None:
    """Write pruned weights into ``model``."""
    if method != ALPS:
        optimize_masks(
            model,
            [images],
            sparsity=1.0 - density,
            objective="reconstruction",
            refit=True,
            seed=seed,
            config={**METHODS[method], "threads": 1},
            progress=False,
        )
        return
    calibration = CalibrationSet.collect([images], images.device)
    budget = LayerBudget(density, None, "layer")
    layers, alps = find_layers(model), LAYER_METHODS["alps"]
    _, weights = prune_layerwise(model, layers, alps, calibration, budget, refit=True)
    with torch.no_grad():
        for name, weight in weights.items():
            model.get_parameter(name).copy_(weight)


def measure(seed: int, density: float, method: str) -> dict[str, float]:
    """Prune a fresh copy of the network of that seed; what it is worth and what it took."""
    dense = load_trained(NETWORK, seed)
    images, _ = data("train")
    x, y = data("test")
    model = copy.deepcopy(dense)
    start = time.process_time()
    prune(model, images[:6000], seed, density, method)
    seconds = time.process_time() - start
    with torch.no_grad():
        now, before = model(x).log_softmax(1), dense(x).log_softmax(1)
    return {
        "accuracy": accuracy(model, x, y),
        "lost": 100 * (accuracy(dense, x, y) - accuracy(model, x, y)),
        "loss": float(F.nll_loss(now, y)),
        "kl": float(F.kl_div(now, before, log_target=True, reduction="batchmean")),
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--densities", type=float, nargs="+", default=[0.1, 0.05, 0.02])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# Tuning after masks and refit",
        "",
        f"Made by `python -m benchmarks.tuning`: {NETWORK}, medians over the networks of seeds "
        f"{', '.join(map(str, args.seeds))}; tuning: {TUNE['epochs']} epochs, learning rate "
        f"{TUNE['learning_rate']}.",
        "",
        "| density | method | accuracy | points lost | test loss | KL to dense | CPU seconds |",
        "|---:|---|---:|---:|---:|---:|---:|",
    ]
    for density in args.densities:
        for method in METHODS:
            runs = [measure(seed, density, method) for seed in args.seeds]
            m = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            lines.append(
                f"| {density:.0%} | {method} | {m['accuracy']:.2%} | {m['lost']:.2f} "
                f"| {m['loss']:.4f} | {m['kl']:.4f} | {m['seconds']:.0f} |"
            )
            print(lines[-1], flush=True)
    lines += ["", *(f"- {key}: {value}" for key, value in describe().items()), ""]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "tuning.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
