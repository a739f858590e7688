"""What another order of the channels is worth to an N:M pattern, mask only and with refit.

    python -m benchmarks.permutation [--patterns 2:4 1:4] [--seeds 0 1 2]

The network, data and errors of `benchmarks.patterns`; the order is that of `permute_channels`. The
first layer reads pixels, which stay where they are. Writes benchmarks/results/permutation.md.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.machine import describe
from benchmarks.models import data, load_trained
from benchmarks.patterns import IMAGES, NETWORK, accuracy, dense_energy
from optiprune import optimize_masks, permute_channels

RESULT = Path(__file__).parent / "results" / "permutation.md"
LAYERS = ("fc2", "fc3")


@dataclass(frozen=True)
class Run:
    """One network: shares kept in %, and of masks alone and refit errors in % and accuracy in %."""

    kept: list[float]
    masks: list[float]
    refit: list[float]
    seconds: float

    def numbers(self) -> list[float]:
        return [*self.kept, *self.masks, *self.refit]


def measure(pattern: str, seed: int) -> tuple[Run, Run]:
    """Without and with another order."""
    images, _ = data("train")
    dense = load_trained(NETWORK, seed)
    moved = copy.deepcopy(dense)
    began = time.process_time()
    report = permute_channels(moved, [images[:IMAGES]], pattern=pattern, threads=1, seed=seed)
    seconds = time.process_time() - began
    groups = {g.consumers[0]: g for g in report.groups}
    runs = []
    for model, after in ((dense, False), (moved, True)):
        kept = [100.0 * (groups[n].after if after else groups[n].before) for n in LAYERS]
        parts = [pruned(model, pattern, seed, refit) for refit in (False, True)]
        runs.append(Run(kept, parts[0], parts[1], seconds if after else 0.0))
    return runs[0], runs[1]


def pruned(model: torch.nn.Module, pattern: str, seed: int, refit: bool) -> list[float]:
    """Relative held-out error of each layer in %, and accuracy in %."""
    model = copy.deepcopy(model)
    images, _ = data("train")
    result = optimize_masks(
        model,
        [images[:IMAGES]],
        pattern=pattern,
        objective="reconstruction",
        refit=refit,
        seed=seed,
        config={"threads": 1, "tune": {"epochs": 0}},
    )
    result.masks.check_pattern(pattern)
    rows = {r.name: r.holdout_refit if refit else r.holdout_masked for r in result.report.layers}
    return [100.0 * rows[n] / dense_energy(seed, n) for n in LAYERS] + [accuracy(model)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patterns", nargs="+", default=["2:4", "1:4"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# Channel permutation",
        "",
        f"Made by `python -m benchmarks.permutation`: {NETWORK}, medians over networks of seeds "
        f"{', '.join(map(str, args.seeds))}; kept: share of the squared Wanda scores that the "
        "pattern keeps, in %; error: held-out, of each layer's outputs, in % of the mean square of "
        "the dense outputs; accuracy in % on test images; CPU seconds that the order took, one "
        "thread. No tuning of the whole model (`tune.epochs = 0`).",
        "",
        "| pattern | order | kept fc2 | fc3 | mask only: error fc2 | fc3 | accuracy "
        "| refit: error fc2 | fc3 | accuracy | CPU seconds |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    changes = []
    for pattern in args.patterns:
        pairs = [measure(pattern, seed) for seed in args.seeds]
        for i, name in enumerate(("as trained", "permuted")):
            runs = [p[i] for p in pairs]
            middle = [statistics.median(v) for v in zip(*(r.numbers() for r in runs), strict=True)]
            cells = " | ".join(
                f"{v:.2f}" if j in (4, 7) else f"{v:.3g}" for j, v in enumerate(middle)
            )
            took = statistics.median(r.seconds for r in runs)
            lines.append(f"| {pattern} | {name} | {cells} | {took:.1f} |")
            print(lines[-1], flush=True)
        for kind, part in (("mask only", "masks"), ("refit", "refit")):
            each = ", ".join(
                f"{getattr(after, part)[-1] - getattr(before, part)[-1]:+.2f}"
                for before, after in pairs
            )
            changes.append(f"| {pattern} | {kind} | {each} |")
    lines += ["", "Change of the accuracy in points, seed by seed:", ""]
    lines += ["| pattern | weights | change |", "|---|---|---|", *changes]
    lines += ["", *(f"- {key}: {value}" for key, value in describe().items()), ""]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
