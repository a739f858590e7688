"""Accuracy against multiply-adds over a sweep of budgets, without fine-tuning.

    python -m benchmarks.structure_sweep [--models lenet-300-100 cnn-32-64-fc128]

Networks on Fashion-MNIST (trained on the first run, cached), 2000 calibration images; damages of
widths are measured once for all budgets. Writes benchmarks/results/structure_sweep.md and a figure
for each network.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

from benchmarks.machine import machine_line
from benchmarks.models import data, load_trained
from benchmarks.models.networks import takes_flat_input
from benchmarks.models.train import accuracy
from optiprune.shrinking import plot_sweep, sweep_structure

RESULTS = Path(__file__).parent / "results"
SHARES = (0.8, 0.65, 0.5, 0.35, 0.25, 0.15)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=["lenet-300-100", "cnn-32-64-fc128"])
    options = parser.parse_args()
    text = ["# Sweeps of budgets\n", machine_line()]
    for name in options.models:
        flat = takes_flat_input(name)
        model = copy.deepcopy(load_trained(name, 0)).eval()
        x, y = data("train", flat=flat)
        test = data("test", flat=flat)
        start = time.perf_counter()
        results = sweep_structure(model, [(x[:2000], y[:2000])], values=SHARES, multiple=1)
        took = time.perf_counter() - start
        dense = accuracy(model, *test)
        plot_sweep(
            results,
            RESULTS / f"structure_sweep_{name}.png",
            score=lambda m, test=test: 100 * accuracy(m, *test),
            score_name="test accuracy (%)",
            score_before=100 * dense,
        )
        text += [
            f"## {name}\n",
            f"Dense: {100 * dense:.2f} %. All {len(SHARES)} budgets in {took:.0f} s.\n",
            "| budget | multiply-adds | parameters | accuracy (%) | widths proven best |",
            "|---:|---:|---:|---:|---|",
        ]
        for share, r in zip(SHARES, results, strict=True):
            left = {k: r.after[k] / r.before[k] for k in ("macs", "parameters")}
            text.append(
                f"| {share:.0%} | {left['macs']:.4f} | {left['parameters']:.4f} | "
                f"{100 * accuracy(r.model, *test):.2f} | {'yes' if r.chosen.optimal else 'no'} |"
            )
        text.append("")
    (RESULTS / "structure_sweep.md").write_text("\n".join(text))
    print((RESULTS / "structure_sweep.md").read_text())


if __name__ == "__main__":
    main()
