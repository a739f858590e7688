"""Layer errors after a refit: masks chosen before it, by ADMM, and together with the weights.

    python -m benchmarks.joint_error [--densities 0.5 0.2 0.1] [--seeds 0 1 2]

The three layers of a 784-512-512-10 network on Fashion-MNIST (trained on the first run, cached),
each on the dense inputs, so that all rows of the table have the same problem. 6000 training
images calibrate, a quarter of them judges; errors are those on 6000 others, relative to the mean
square of the dense outputs. Writes benchmarks/results/joint_error.md.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import describe
from benchmarks.models import data, load_trained
from optiprune import optimize_masks
from optiprune.curvature.data import CalibrationSet
from optiprune.curvature.gram import collect_grams
from optiprune.curvature.layers import find_layers

NETWORK = "mlp-784-512-512-10"
RESULTS = Path(__file__).parent / "results"
METHODS: dict[str, dict[str, Any]] = {
    "Wanda's mask": {"joint": {"enabled": False}, "batches": {"sweeps": 0}},
    "mask for the values before": {"joint": {"enabled": False}},
    "ADMM": {"joint": {"rounds": 0}},
    "best subsets from Wanda's mask": {"joint": {"start": "initial"}},
    "ADMM, then best subsets (default)": {},
}


def measure(seed: int, density: float, config: dict[str, Any]) -> tuple[list[float], float]:
    """(relative test error of every layer, seconds)."""
    dense = load_trained(NETWORK, seed)
    images, _ = data("train")
    model = copy.deepcopy(dense)
    start = time.perf_counter()
    optimize_masks(
        model,
        [images[:6000]],
        sparsity=1.0 - density,
        objective="reconstruction",
        refit=True,
        seed=seed,
        config={
            **config,
            "curvature": {"inputs": "dense"},
            "prune": {"scope": "layer"},
            "tune": {"epochs": 0},
        },
    )
    took = time.perf_counter() - start
    layers = find_layers(dense)
    test = CalibrationSet.collect([images[6000:12000]], torch.device("cpu"))
    grams = collect_grams(dense, layers, {}, None, test)
    errors = []
    for layer in layers:
        gram = grams[layer.name]
        rows = dense.get_parameter(layer.parameter).detach()
        now = model.get_parameter(layer.parameter).detach()
        errors.append(float(gram.error(now, rows).sum() / gram.target_energy(rows).sum()))
    return errors, took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--densities", type=float, nargs="+", default=[0.5, 0.2, 0.1])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    lines = [
        "# Layer errors after a refit",
        "",
        "Made by `python -m benchmarks.joint_error`: medians over networks of seeds "
        f"{', '.join(map(str, args.seeds))}; error on images that were not used, in % of the mean "
        "square of the dense outputs; seconds for the whole network.",
        "",
        "| density | weights after the refit, mask by | fc1 | fc2 | fc3 | seconds |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    for density in args.densities:
        for name, config in METHODS.items():
            runs = [measure(seed, density, config) for seed in args.seeds]
            medians = [statistics.median(e) for e in zip(*(r[0] for r in runs), strict=True)]
            cells = " | ".join(f"{100 * e:.3g}" for e in medians)
            took = statistics.median(r[1] for r in runs)
            lines.append(f"| {density:.0%} | {name} | {cells} | {took:.1f} |")
            print(lines[-1], flush=True)
    lines += ["", *(f"- {key}: {value}" for key, value in describe().items()), ""]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "joint_error.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
