"""Which curvature and which loss the global search should use: masks at 10 % density, no refit.

    python -m benchmarks.curvature [--seeds 0 1 2]

A network on Fashion-MNIST; the 60,000 training images calibrate, a tenth of them held out to judge
the steps. Writes benchmarks/results/curvature.md, the numbers behind docs/decisions/0003.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from benchmarks.models import accuracy, data, load_trained
from optiprune import optimize_masks

NETWORK = "mlp-784-512-512-10"
RESULTS = Path(__file__).parent / "results" / "curvature.md"
ROWS: dict[str, dict[str, Any]] = {
    "true Fisher, labels": {"curvature": {"fisher": "true"}},
    "empirical Fisher, labels": {"curvature": {"fisher": "empirical"}},
    "true Fisher, dense outputs (kl)": {"prune": {"loss": "kl"}, "curvature": {"fisher": "true"}},
    "true Fisher, labels, ridge not adapted": {
        "curvature": {"fisher": "true", "adapt_ridge": False}
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    lines = [
        f"# Curvature and loss of the global search: {NETWORK}, 10 % density, mask only",
        "",
        f"Medians of seeds {', '.join(map(str, args.seeds))}. Made by "
        "`python -m benchmarks.curvature`.",
        "",
        "| curvature, targets | accuracy | points lost | steps that stayed | seconds |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, config in ROWS.items():
        found = []
        for seed in args.seeds:
            model = copy.deepcopy(load_trained(NETWORK, seed))
            dense = accuracy(model, *data("test"))
            report = optimize_masks(
                model,
                [data("train")],
                sparsity=0.9,
                objective="global",
                refit=False,
                config=config,
                seed=seed,
                progress=False,
            ).report
            pruned = accuracy(model, *data("test"))
            lost, stayed = 100 * (dense - pruned), report.accepted / report.steps
            found.append((pruned, lost, stayed, report.seconds))
            print(f"{name:40s} seed {seed}: {pruned:.2%} (-{lost:.2f})", flush=True)
        a, lost, stayed, seconds = (
            statistics.median(column) for column in zip(*found, strict=True)
        )
        lines.append(f"| {name} | {a:.2%} | {lost:.2f} | {stayed:.0%} | {seconds:.1f} |")
    lines += ["", *(f"- {k}: {v}" for k, v in describe().items()), ""]
    RESULTS.write_text("\n".join(lines))
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
