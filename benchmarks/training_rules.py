"""Rules of pruning in training, each by itself and with the engine deciding in its place.

    python -m benchmarks.training_rules [--models cnn-32-64-fc128 resnet20] [--parameters 0.35]

The trained networks on Fashion-MNIST (seed 0), every row with the same budget of training: 2 epochs
over 10,000 images, the choice at a share of the parameters, and 2 epochs over the same images, SGD
with momentum from 0.02 to 0 by a cosine, on one thread. Test accuracy of 10,000 images.
torch-pruning runs between the same two loops, one row for each of its importances. Writes
benchmarks/results/training_rules_<model>.md and .jsonl, of which a row that is there is not
measured again.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.machine import machine_line
from benchmarks.models import data, load_trained
from benchmarks.models.networks import takes_flat_input
from benchmarks.models.train import accuracy
from benchmarks.structure_choice import IMPORTANCES, torch_pruning
from optiprune.config import validate
from optiprune.masks import MaskSet, keep_masked
from optiprune.structure.timing import alternated
from optiprune.training import (
    Distillation,
    TrainingConfig,
    plot_concentration,
    prune_in_training,
    rank_correlations,
    train,
)

RESULTS = Path(__file__).parent / "results"
IMAGES, CALIBRATION, EPOCHS = 10_000, 2000, 2
OPTIMIZER = {"name": "SGD", "lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
LOOP = {"epochs": EPOCHS, "batch_size": 128, "optimizer": OPTIMIZER}
FEATURES = {
    "cnn-32-64-fc128": ("pool1", "pool2", "relu3"),
    "resnet20": ("stage1", "stage2", "stage3"),
}
STRENGTH = {"cnn-32-64-fc128": 0.003, "resnet20": 0.003}
BATCH = 128


@dataclass(frozen=True)
class Row:
    rule: str
    decide: str
    parameters: float
    macs: float
    chosen: float
    accuracy: float
    speed_up: float
    seconds: float


def rules(name: str, share: float) -> dict[str, dict[str, Any]]:
    """By the name of a row the tables that differ from the common ones."""
    features = {f: f for f in FEATURES[name]}
    budget = {"parameters": share}
    everything = {"tolerance": 1.0}
    weight = {**everything, "initial": 0.05, "lower_limit": 0.001, "sessions": 50}
    steps = {**everything, "step": 0.05}
    shape = [784] if takes_flat_input(name) else [1, 28, 28]
    return {
        "average weight (L1)": {"budget": budget},
        "torque, then average weight": {
            "budget": budget,
            "torque": {"strength": STRENGTH[name], "profile": "exponential"},
        },
        "distillation, second loss": {
            "budget": budget,
            "choice": {"rule": "features"},
            "distillation": {
                "phases": ["train", "finetune"],
                "features": features,
                "output_weight": 1.0,
                "feature_weight": 1.0,
            },
        },
        "sensitivity": {
            "budget": budget,
            "choice": {"rule": "sensitivity"},
            "sensitivity": steps,
        },
        "learning weight": {
            "budget": budget,
            "choice": {"rule": "learning-weight"},
            "learning_weight": weight,
        },
        "synthetic samples, behaviour": {
            "budget": budget,
            "choice": {"rule": "behaviour"},
            "sensitivity": steps,
            "synthetic": {"shape": shape, "samples": 512, "batch": 128, "low": 0.0, "high": 1.0},
        },
    }


def measure(name: str, share: float, journal: Path) -> list[Row]:
    rows = known(journal)
    flat = takes_flat_input(name)
    model = copy.deepcopy(load_trained(name, 0)).eval()
    x, y = data("train", flat=flat)
    test = data("test", flat=flat)
    images = [(x[:IMAGES], y[:IMAGES])]
    calibration = [(x[:CALIBRATION], y[:CALIBRATION])]

    def add(row: Row) -> None:
        rows.append(row)
        with journal.open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")
        print(row, flush=True)

    def missing(rule: str, decide: str) -> bool:
        return all((r.rule, r.decide) != (rule, decide) for r in rows)

    if missing("dense", ""):
        full = accuracy(model, *test)
        add(Row("dense", "", 1.0, 1.0, full, full, 1.0, 0.0))
    place = Path(tempfile.mkdtemp())
    plain = place / "plain.ckpt"
    for rule, tables in rules(name, share).items():
        for decide in ("rule", "engine"):
            if not missing(rule, decide):
                continue
            choice = {**tables.get("choice", {}), "decide": decide}
            if decide == "engine" and choice.get("rule") not in ("sensitivity", "behaviour"):
                choice["engine"] = {"multiple": 1}
            if choice.get("rule", "average-weight") == "average-weight" and decide == "engine":
                choice["refit"] = True
            config = validate(
                TrainingConfig,
                {"train": LOOP, "finetune": LOOP, **tables, "choice": choice},
            )
            synthetic = "synthetic" in tables
            folder = place / f"{len(rows)}"
            folder.mkdir()
            same = not config.torque.strength and not config.distillation.phases
            if same and plain.exists():  # the same first loop: not run again, its time is added
                shutil.copy(plain, folder / "train.ckpt")
            result = prune_in_training(
                model,
                images,
                config,
                calibration="synthetic" if synthetic else calibration,
                evaluate=lambda m: {"accuracy": accuracy(m, *test)},
                folder=folder,
            )
            seconds = {p.name: p.seconds for p in result.phases}
            if same and not plain.exists():
                shutil.copy(folder / "train.ckpt", plain)
                (place / "seconds").write_text(str(seconds["train"]))
            if same:
                seconds["train"] = float((place / "seconds").read_text())
            if result.concentration is not None and decide == "rule":
                path = RESULTS / f"training_rules_{name}_torque.png"
                plot_concentration(*result.concentration, path)
                after = rank_correlations(result.concentration[1])
                print("rank correlations:", after, flush=True)
            scores = [p.scores["accuracy"] for p in result.phases if p.scores]
            add(
                Row(
                    rule,
                    decide,
                    result.parameters[1] / result.parameters[0],
                    result.macs[1] / result.macs[0] if result.macs else 1.0,
                    scores[1],
                    scores[2],
                    speed_up(model, result.model, x[:BATCH]),
                    sum(seconds.values()),
                )
            )
    if importlib.util.find_spec("torch_pruning") is not None:
        trained: nn.Module | None = None
        for importance in IMPORTANCES:
            rule = f"torch-pruning, {importance}"
            if not missing(rule, "rule"):
                continue
            if trained is None:
                start = time.perf_counter()
                trained = loop(copy.deepcopy(model), images, IMAGES, EPOCHS, seed=0)
                first = time.perf_counter() - start
            start = time.perf_counter()
            net, macs = torch_pruning(importance, trained, *calibration[0], share, "parameters")
            chosen = accuracy(net, *test)
            loop(net, images, IMAGES, EPOCHS, seed=1_000_003)
            took = first + time.perf_counter() - start
            size = sum(p.numel() for p in net.parameters())
            add(
                Row(
                    rule,
                    "rule",
                    size / sum(p.numel() for p in model.parameters()),
                    macs,
                    chosen,
                    accuracy(net, *test),
                    speed_up(model, net, x[:BATCH]),
                    took,
                )
            )
    return rows


def loop(
    model: nn.Module,
    inputs: list[Any],
    samples: int,
    epochs: int,
    *,
    masks: MaskSet | None = None,
    callbacks: Sequence[Distillation] = (),
    **more: Any,
) -> nn.Module:
    """The loop of the config, by hand."""
    options = {k: v for k, v in OPTIMIZER.items() if k != "name"}
    own = [p for c in callbacks for p in c.parameters()]
    optimizer = torch.optim.SGD([*model.parameters(), *own], **options)
    steps = epochs * -(-samples // LOOP["batch_size"])
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with nullcontext() if masks is None else keep_masked(model, masks, optimizer):
        train(
            model.train(),
            inputs,
            optimizer,
            scheduler=scheduler,
            epochs=epochs,
            callbacks=callbacks,
            **more,
        )
    return model.eval()


@torch.no_grad()
def speed_up(model: nn.Module, small: nn.Module, x: Tensor) -> float:
    before, after = alternated(lambda: model(x), lambda: small(x), repeats=15)
    return before / after


def known(journal: Path) -> list[Row]:
    lines = journal.read_text().splitlines() if journal.exists() else []
    return [Row(**json.loads(line)) for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=["cnn-32-64-fc128", "resnet20"])
    parser.add_argument("--parameters", type=float, default=0.35)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.models:
        lines = [f"# Pruning in training: {name}\n", machine_line()]
        lines += table(name, options.parameters)
        (RESULTS / f"training_rules_{name}.md").write_text("\n".join(lines) + "\n")


def table(name: str, share: float) -> list[str]:
    rows = measure(name, share, RESULTS / f"training_rules_{name}.jsonl")
    text = [
        f"No more than {share:.0%} of the parameters, {EPOCHS} epochs over {IMAGES:,} images "
        f"before the choice and {EPOCHS} after it; one seed. Speed-ups are of a forward of 128 "
        "images on one thread, in turns with the dense network. Seconds are of training and "
        "choosing, on a machine busy with other work.\n",
        "| rule | decides | parameters | multiply-adds | accuracy when chosen | fine-tuned | "
        "speed-up | seconds |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for r in rows:
        text.append(
            f"| {r.rule} | {r.decide} | {r.parameters:.3f} | {r.macs:.3f} | {r.chosen:.2%} | "
            f"{r.accuracy:.2%} | {r.speed_up:.2f} | {r.seconds:.0f} |"
        )
    return text


if __name__ == "__main__":
    main()
