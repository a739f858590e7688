"""Accuracy of a 784-512-512-10 network on Fashion-MNIST after pruning: ours beside simple rules.

    python -m benchmarks.accuracy [--seeds 0 1 2] [--densities 0.1 0.05]

Trains the networks on the first run (cached). Calibration: the 60,000 training images, a quarter of
them held out to judge the steps; accuracy: the 10,000 test images, which nothing else has seen.
Writes benchmarks/results/accuracy.md and .json.
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
from torch import nn

from benchmarks.machine import describe
from benchmarks.models import accuracy, data, load_trained
from optiprune import optimize_masks

NETWORK = "mlp-784-512-512-10"
RESULTS = Path(__file__).parent / "results"

# every row: what optimize_masks is asked for; steps = 0 leaves the first mask as it is; "no labels"
# takes the dense network's outputs as targets (loss = "kl")
METHODS: dict[str, dict[str, Any]] = {
    "magnitude": {"refit": False, "steps": 0},
    "Wanda (per output)": {"refit": False, "steps": 0, "initial": "wanda", "scope": "row"},
    "ours, mask only": {"refit": False},
    "ours, mask only, no labels": {"refit": False, "loss": "kl"},
    "magnitude + refit": {"refit": True, "steps": 0},
    "ours + refit": {"refit": True},
    "ours + refit, no labels": {"refit": True, "loss": "kl"},
}


def measure(model: nn.Module) -> tuple[float, float]:
    """Test accuracy and mean test loss."""
    x, y = data("test")
    with torch.no_grad():
        return accuracy(model, x, y), float(F.cross_entropy(model(x), y))


def run(seed: int, density: float, options: dict[str, Any]) -> dict[str, Any]:
    """Prune a fresh copy of the network of that seed, and measure it."""
    model = copy.deepcopy(load_trained(NETWORK, seed))
    batches = {} if "steps" not in options else {"steps": options["steps"]}
    config = {
        "batches": batches,
        "initial": {"method": options.get("initial", "auto")},
        "prune": {"scope": options.get("scope", "auto"), "loss": options.get("loss", "auto")},
    }
    began = time.perf_counter()
    result = optimize_masks(
        model,
        [data("train")],
        sparsity=1.0 - density,
        objective="global",
        refit=options["refit"],
        config=config,
        seed=seed,
        progress=False,
    )
    seconds = time.perf_counter() - began
    acc, loss = measure(model)
    return {
        "accuracy": acc,
        "loss": loss,
        "seconds": seconds,
        "density": result.density,
        "steps": result.report.steps,
        "accepted": result.report.accepted,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--densities", type=float, nargs="+", default=[0.1, 0.05])
    args = parser.parse_args()
    # compile the solver's kernels and load the data before anything is timed
    optimize_masks(
        copy.deepcopy(load_trained(NETWORK, args.seeds[0])),
        [tuple(t[:2000] for t in data("train"))],
        objective="global",
        sparsity=0.9,
        refit=True,
        config={"batches": {"steps": 1}},
        progress=False,
    )
    dense = {s: measure(load_trained(NETWORK, s)) for s in args.seeds}
    rows = []
    for density in args.densities:
        for name, options in METHODS.items():
            for seed in args.seeds:
                row = {"method": name, "target": density, "seed": seed}
                row |= run(seed, density, options)
                row["lost_points"] = 100 * (dense[seed][0] - row["accuracy"])
                rows.append(row)
                print(
                    f"{density:5.0%} {name:20s} seed {seed}: {row['accuracy']:.2%} "
                    f"(-{row['lost_points']:.2f}) {row['seconds']:.1f} s",
                    flush=True,
                )
    machine = describe()
    RESULTS.mkdir(exist_ok=True)
    out = {"machine": machine, "network": NETWORK, "dense": dense, "rows": rows}
    (RESULTS / "accuracy.json").write_text(json.dumps(out, indent=1) + "\n")
    (RESULTS / "accuracy.md").write_text(table(dense, rows, args, machine))
    print((RESULTS / "accuracy.md").read_text())


def table(
    dense: dict[int, tuple[float, float]],
    rows: list[dict[str, Any]],
    args: argparse.Namespace,
    machine: dict[str, str],
) -> str:
    """Markdown: medians over the seeds."""
    lines = [
        f"# {NETWORK} on Fashion-MNIST, medians of seeds {', '.join(map(str, args.seeds))}",
        "",
        f"Dense test accuracy: {statistics.median(a for a, _ in dense.values()):.2%}. "
        "Made by `python -m benchmarks.accuracy`.",
        "",
        "| density | method | moves weights | accuracy | points lost | test loss | seconds |",
        "|---:|---|---|---:|---:|---:|---:|",
    ]
    for density in args.densities:
        for name, options in METHODS.items():
            mine = [r for r in rows if r["method"] == name and r["target"] == density]

            def median(key: str, mine: list[dict[str, Any]] = mine) -> float:
                return statistics.median(r[key] for r in mine)

            lines.append(
                f"| {density:.0%} | {name} | {'yes' if options['refit'] else 'no'} "
                f"| {median('accuracy'):.2%} | {median('lost_points'):.2f} "
                f"| {median('loss'):.3f} | {median('seconds'):.1f} |"
            )
    lines += ["", *(f"- {k}: {v}" for k, v in machine.items()), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
