"""Densities of the layers: equal, by outliers, and by a knapsack over measured curves.

    python -m benchmarks.allocation [--models mlp-784-512-512-10 cnn-32-64-fc128]
        [--densities 0.2 0.1 0.05] [--seeds 0 1 2]

Reconstruction with refit on training images of Fashion-MNIST without labels, a quarter of them held
out; measured on the 10,000 test images. One thread; seconds are CPU time, with the curves in them.
Finished runs are kept in benchmarks/results/allocation.json and not run again; writes
benchmarks/results/allocation.md.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.machine import describe
from benchmarks.models import accuracy, data, load_trained
from benchmarks.models.networks import takes_flat_input
from optiprune import optimize_masks

RESULTS = Path(__file__).parent / "results"
# the patches of a convolution are many: fewer images fill its Gram matrices as well
SAMPLES = {"mlp-784-512-512-10": 6000, "lenet-300-100": 6000, "cnn-32-64-fc128": 2000}
METHODS: dict[str, dict[str, Any]] = {
    "uniform": {},
    "owl": {"method": "owl"},
    "knapsack (layer-error)": {"method": "knapsack", "curve": "layer-error"},
    "knapsack (loss)": {"method": "knapsack", "curve": "loss"},
}


def measure(network: str, seed: int, density: float, allocation: dict[str, Any]) -> dict[str, Any]:
    """Prune a fresh copy of the network of that seed; what it is worth and what it took."""
    dense = load_trained(network, seed)
    flat = takes_flat_input(network)
    images, _ = data("train", flat=flat)
    x, y = data("test", flat=flat)
    model = copy.deepcopy(dense)
    start = time.process_time()
    result = optimize_masks(
        model,
        [images[: SAMPLES.get(network, 2000)]],
        sparsity=1.0 - density,
        objective="reconstruction",
        refit=True,
        seed=seed,
        config={"allocation": allocation, "tune": {"epochs": 0}, "threads": 1},
        progress=False,
    )
    seconds = time.process_time() - start
    with torch.no_grad():
        pairs = [(model(a), dense(a), b) for a, b in zip(x.split(500), y.split(500), strict=True)]
    now, before, labels = (torch.cat(t) for t in zip(*pairs, strict=True))
    kl = F.kl_div(now.log_softmax(1), before.log_softmax(1), log_target=True, reduction="batchmean")
    report = result.report.allocation
    return {
        "accuracy": accuracy(model, x, y),
        "dense_accuracy": accuracy(dense, x, y),
        "loss": float(F.cross_entropy(now, labels)),
        "kl": float(kl),
        "seconds": seconds,
        "density": result.density,
        "densities": {row.name: row.density for row in result.report.layers},
        "predicted": None if report is None else report.predicted,
        "predicted_uniform": None if report is None else report.predicted_uniform,
    }


def table(done: dict[str, dict[str, Any]]) -> list[str]:
    """Medians over the seeds that are done, a row for each network, density and method."""
    cells: dict[tuple[str, float, str], list[dict[str, Any]]] = {}
    for key, row in done.items():
        network, density, method, _ = json.loads(key)
        cells.setdefault((network, density, method), []).append(row)
    order = list(METHODS)
    lines = [
        "| network | density | densities by | accuracy | points lost | test loss | KL to dense "
        "| CPU seconds | densities of the layers | seeds |",
        "|---|---:|---|---:|---:|---:|---:|---:|---|---:|",
    ]
    for (network, density, method), rows in sorted(
        cells.items(), key=lambda c: (c[0][0], -c[0][1], order.index(c[0][2]))
    ):

        def middle(name: str, rows: list[dict[str, Any]] = rows) -> float:
            return statistics.median(r[name] for r in rows)

        lost = statistics.median(100 * (r["dense_accuracy"] - r["accuracy"]) for r in rows)
        layers = ", ".join(f"{d:.3f}" for d in rows[0]["densities"].values())
        lines.append(
            f"| {network} | {density:.0%} | {method} | {middle('accuracy'):.2%} | {lost:.2f} "
            f"| {middle('loss'):.4f} | {middle('kl'):.4f} | {middle('seconds'):.0f} | {layers} "
            f"| {len(rows)} |"
        )
    return lines


def _read(store: Path) -> dict[str, dict[str, Any]]:
    return json.loads(store.read_text()) if store.exists() else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["mlp-784-512-512-10", "cnn-32-64-fc128"])
    parser.add_argument("--densities", type=float, nargs="+", default=[0.2, 0.1, 0.05])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    store = RESULTS / "allocation.json"
    done = _read(store)
    for seed in args.seeds:
        for network in args.models:
            for density in args.densities:
                for method, allocation in METHODS.items():
                    key = json.dumps([network, density, method, seed])
                    if key not in done:
                        done[key] = measure(network, seed, density, allocation)
                        print(key, json.dumps(done[key]), flush=True)
                        done = {**_read(store), **done}  # another process may have added to it
                        store.write_text(json.dumps(done, indent=1) + "\n")
    head = [
        "# Densities of the layers",
        "",
        "Made by `python -m benchmarks.allocation`: reconstruction with refit, medians over seeds "
        f"({', '.join(map(str, args.seeds))}); densities of the layers for the first of them.",
        "",
    ]
    about = ["", *(f"- {key}: {value}" for key, value in describe().items()), ""]
    (RESULTS / "allocation.md").write_text("\n".join([*head, *table(done), *about]))


if __name__ == "__main__":
    main()
