"""What is dead in networks that lost most of their weights, and what it is worth to take it out.

    python -m benchmarks.structure_dead [--models ...] [--densities 0.1 0.05 0.02]

Networks on Fashion-MNIST (trained on the first run, cached) after global magnitude pruning. Then
`remove_dead` until nothing is dead, then `compacted`: layers that skip rows and columns of zeros
where that is faster. Error: largest difference of an output over the largest output, against the
sparse model, on 256 test images. Latency: median of forwards of 64 images on one thread, in turns
with the sparse model. Writes benchmarks/results/structure_dead.md.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.machine import machine_line
from benchmarks.models import data, load_trained
from benchmarks.models.networks import takes_flat_input
from benchmarks.models.train import magnitude_prune
from optiprune.structure import compacted, remove_dead
from optiprune.structure.timing import alternated

RESULTS = Path(__file__).parent / "results"


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@torch.no_grad()
def error(model: nn.Module, other: nn.Module, x: Tensor) -> float:
    want = model(x)
    return float((want - other(x)).abs().max() / want.abs().max())


def seconds(model: nn.Module, other: nn.Module, x: Tensor) -> tuple[float, float]:
    with torch.no_grad():
        return alternated(lambda: model(x), lambda: other(x), repeats=15)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=["lenet-300-100", "resnet20"])
    parser.add_argument("--densities", nargs="+", type=float, default=[0.1, 0.05, 0.02])
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = [
        "# Dead units\n",
        machine_line(),
        "| model | weights left | dead units | rounds | parameters | after | error | speed-up | "
        "layers compacted | speed-up then |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name in options.models:
        test, _ = data("test", flat=takes_flat_input(name))
        dense = copy.deepcopy(load_trained(name, 0)).eval()
        for density in options.densities:
            sparse = copy.deepcopy(dense)
            magnitude_prune(sparse, density)
            done = remove_dead(sparse, (test[:2],))
            before, after = seconds(sparse, done.model, test[:64])
            fast = compacted(done.model, (test[:64],))
            start, end = seconds(sparse, fast.model, test[:64])
            text.append(
                f"| {name} | {density:.0%} | {sum(done.removed.values())} | {done.rounds} | "
                f"{done.parameters_before:,} | {done.parameters_after:,} | "
                f"{error(sparse, done.model, test[:256]):.1e} | {before / after:.2f} | "
                f"{sum(r.replaced for r in fast.records)} | {start / end:.2f} |"
            )
            print(text[-1], flush=True)
    (RESULTS / "structure_dead.md").write_text("\n".join([*text, ""]))


if __name__ == "__main__":
    main()
