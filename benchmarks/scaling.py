"""Time and memory of reconstruction against the number of weights, at a fixed calibration size.

    python -m benchmarks.scaling [--blocks 1 2 4 8] [--windows 8] [--rounds 0]

SmolLM2-135M cut to its first blocks (3.5 million weights each), 50 % density, masks by ADMM (and
that many rounds of best-subset batches), knapsack, refit and one pass of tuning, on windows of 512
tokens. Every size runs in a process of its own, with one thread; seconds are CPU time of
`optimize_masks`, memory is the highest resident size over that before the call. Writes
benchmarks/results/scaling.md and scaling.png.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.machine import describe
from benchmarks.quality.memory import peak_mib, reset_peak, resident_mib

RESULTS = Path(__file__).parent / "results"


def one(blocks: int, windows: int, rounds: int) -> dict[str, float]:
    """Prune the first ``blocks`` blocks."""
    from benchmarks.models.language import load_smollm2, token_windows
    from optiprune import optimize_masks

    model = load_smollm2()
    model.model.layers = model.model.layers[:blocks]
    data = [{"input_ids": token_windows(None, 60, windows)}]
    reset_peak()
    before = resident_mib()
    start = time.process_time()
    result = optimize_masks(
        model,
        data,
        sparsity=0.5,
        include=["model.layers.*"],
        config={
            "threads": 1,
            "allocation": {"curve": "fisher"},  # one block alone would run the model for each level
            "curvature": {"chunk": 1},
            "joint": {"rounds": rounds},
            "tune": {"epochs": 1},
        },
        progress=False,
    )
    seconds = time.process_time() - start
    peak = peak_mib()
    layers = result.report.layers
    return {
        "blocks": blocks,
        "layers": len(layers),
        "weights": sum(row.total for row in layers),
        "seconds": seconds,
        "memory_mib": peak - before,
    }


def draw(rows: list[dict[str, float]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    x = [row["weights"] / 1e6 for row in rows]
    for axis, key, label in zip(
        axes, ("seconds", "memory_mib"), ("CPU seconds", "memory added, MiB"), strict=True
    ):
        axis.plot(x, [row[key] for row in rows], "o-", color="tab:blue")
        axis.set(xlabel="million weights", ylabel=label, xlim=(0, None), ylim=(0, None))
        axis.grid(alpha=0.3)
    figure.suptitle("Reconstruction, refit and a pass of tuning at 50 %, fixed calibration data")
    figure.savefig(RESULTS / "scaling.png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=0, help="best-subset batches of a row")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one is not None:
        print(json.dumps(one(args.one, args.windows, args.rounds)))
        return
    rows = []
    for blocks in args.blocks:
        options = ["--windows", args.windows, "--rounds", args.rounds, "--one", blocks]
        command = [sys.executable, "-m", "benchmarks.scaling", *map(str, options)]
        out = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append(json.loads(out.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    lines = [
        "# Time and memory against size",
        "",
        f"Made by `python -m benchmarks.scaling`: {args.windows} windows of 512 tokens, "
        f"{args.rounds} rounds of best-subset batches, one pass of tuning.",
        "",
        "| blocks | layers | million weights | CPU seconds | seconds a million | MiB added "
        "| MiB a million |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        millions = row["weights"] / 1e6
        lines.append(
            f"| {row['blocks']} | {row['layers']} | {millions:.1f} | {row['seconds']:.0f} "
            f"| {row['seconds'] / millions:.2f} | {row['memory_mib']:.0f} "
            f"| {row['memory_mib'] / millions:.0f} |"
        )
    lines += ["", *(f"- {key}: {value}" for key, value in describe().items()), ""]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "scaling.md").write_text("\n".join(lines))
    draw(rows)


if __name__ == "__main__":
    main()
