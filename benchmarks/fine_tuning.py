"""What fine-tuning gives a sparse network back: all kept weights, or low-rank adapters.

    python -m benchmarks.fine_tuning [--models lenet-300-100 cnn-32-64-fc128] [--density 0.05]

Fashion-MNIST; each layer is pruned by magnitude, so that there is something to gain; 3 epochs over
10,000 training images with AdamW, its rate falling to zero, the first rate of each way the best of
four by 2000 further training images; test accuracy of three seeds (order of the images, first
values of adapters; the checkpoint is one). "LoRA, masked after" is the common way: adapters without
a mask are trained, merged, and the mask is put on again. At a rate that stays, seeds of the CNN
ended up to 71 points apart. Writes benchmarks/results/fine_tuning.md.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.machine import machine_line
from benchmarks.models import data, load_trained
from benchmarks.models.networks import takes_flat_input
from optiprune import MaskSet
from optiprune.finetuning import add_lora

RESULT = Path(__file__).parent / "results" / "fine_tuning.md"
EPOCHS, BATCH, TRAIN, HELD = 3, 128, 10_000, 2_000
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
SEEDS = (0, 1, 2)
RANKS = {"lenet-300-100": (2, 8), "cnn-32-64-fc128": (8,)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", choices=list(RANKS), default=list(RANKS))
    parser.add_argument("--density", type=float, default=0.05)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = ["# Fine-tuning of sparse networks", "", machine_line()]
    lines += ["Made by `python -m benchmarks.fine_tuning`, which says what is compared. Mean and"]
    lines += ["spread (largest less smallest) of three seeds, in %.", ""]
    for name in options.models:
        lines += table(name, options.density)
        RESULT.write_text("\n".join(lines) + "\n")
    print(RESULT.read_text())


def table(name: str, density: float) -> list[str]:
    flat = takes_flat_input(name)
    x, y = data("train", flat=flat)
    x_test, y_test = data("test", flat=flat)
    train, held = (x[:TRAIN], y[:TRAIN]), (x[TRAIN : TRAIN + HELD], y[TRAIN : TRAIN + HELD])
    dense = copy.deepcopy(load_trained(name, 0)).eval()
    sparse = copy.deepcopy(dense)
    masks = by_magnitude(sparse, density)
    masks.apply(sparse).make_permanent()
    lines = [
        f"## {name}, density {100 * density:g} %",
        "",
        f"Dense {100 * accuracy(dense, x_test, y_test):.2f} %, "
        f"pruned {100 * accuracy(sparse, x_test, y_test):.2f} %.",
        "",
        "| way | rate | trained numbers | test accuracy | spread | density after | s a run |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for way in ("all kept weights", *(f"{k}, rank {r}" for r in RANKS[name] for k in KINDS)):
        judged = {}
        for rate in RATES:
            model, _ = tuned(way, sparse, masks, train, rate, SEEDS[0])
            judged[rate] = accuracy(model, *held)
        best = max(judged, key=judged.__getitem__)
        found, start = [], time.process_time()
        for seed in SEEDS:
            model, numbers = tuned(way, sparse, masks, train, best, seed)
            found.append(100 * accuracy(model, x_test, y_test))
            now = MaskSet.from_model(model, names=list(masks)).density()
        seconds = (time.process_time() - start) / len(SEEDS)
        lines.append(
            f"| {way} | {best:g} | {numbers} | {statistics.mean(found):.2f} "
            f"| {max(found) - min(found):.2f} | {100 * now:.2f} % | {seconds:.1f} |"
        )
        print(lines[-1], flush=True)
    return [*lines, ""]


KINDS = ("LoRA with the mask", "LoRA, merged", "LoRA, masked after")


def tuned(
    way: str,
    sparse: nn.Module,
    masks: MaskSet,
    train: tuple[Tensor, Tensor],
    rate: float,
    seed: int,
) -> tuple[nn.Module, int]:
    """A fine-tuned copy, and how many numbers were trained."""
    model = copy.deepcopy(sparse)
    biases = [n for n, _ in model.named_parameters() if n not in masks]
    if way == "all kept weights":
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
        with masks.keep(model, optimizer):
            fit(model, optimizer, train, seed)
        rest = sum(model.get_parameter(n).numel() for n in biases)
        return model.eval(), masks.count() + rest
    masked = way.startswith(KINDS[0])
    # common LoRA is the one whose mask keeps all
    own = masks if masked else MaskSet({n: torch.ones_like(m) for n, m in masks.items()})
    rank = int(way.rpartition(" ")[2])
    adapters = add_lora(model, own, rank=rank, also_train=biases, seed=seed)
    parameters = adapters.parameters()
    fit(model, torch.optim.AdamW(parameters, lr=rate), train, seed)
    adapters.merge()
    if way.startswith(KINDS[2]):
        masks.apply(model).make_permanent()
    return model.eval(), sum(p.numel() for p in parameters)


def by_magnitude(model: nn.Module, density: float) -> MaskSet:
    masks = {}
    for name, p in model.named_parameters():
        if p.ndim > 1:
            mask = torch.zeros(p.numel(), dtype=torch.bool)
            mask[p.detach().abs().flatten().topk(round(density * p.numel())).indices] = True
            masks[name] = mask.reshape(p.shape)
    return MaskSet(masks)


def fit(
    model: nn.Module, optimizer: torch.optim.Optimizer, train: tuple[Tensor, Tensor], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = train
    steps = EPOCHS * -(-len(x) // BATCH)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    model.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x), generator=generator).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
            falling.step()


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    parts: Iterable[tuple[Tensor, Tensor]] = zip(x.split(1000), y.split(1000), strict=True)
    return sum(int((model(a).argmax(1) == b).sum()) for a, b in parts) / len(x)


if __name__ == "__main__":
    main()
