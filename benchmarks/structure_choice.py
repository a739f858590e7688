"""Which units stay, by several rules at the same widths, before and after the same fine-tuning.

    python -m benchmarks.structure_choice [--models resnet20 cnn-32-64-fc128] [--macs 0.5]
        [--tunings 3]

Networks on Fashion-MNIST (trained on the first run, cached). Widths come from `optimize_structure`
at a share of the multiply-adds; every rule keeps as many units of each group. Rules that keep the
weights are shown as they are and with our refit of the layers that read what is left.
torch-pruning, if it is installed (`pip install torch-pruning`), chooses its own widths with each of
its importances, in steps until the budget is met; the best of them is shown. Fine-tuning is one
recipe for all: SGD on the first 20,000 training images with labels, once for each of some orders of
the images. Writes benchmarks/results/structure_choice_*.jsonl, a row each, and the tables from
them; rows that are there are not measured again.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.machine import machine_line
from benchmarks.models import data, load_trained
from benchmarks.models.networks import takes_flat_input
from benchmarks.models.train import accuracy
from optiprune.curvature import CalibrationSet, gate_gradients, linearise_loss
from optiprune.curvature.losses import cross_entropy
from optiprune.shrinking import optimize_structure, refit_and_shrink
from optiprune.shrinking.readers import find_readers
from optiprune.structure import Plan, Structure, shrink

RESULTS = Path(__file__).parent / "results"
CALIBRATION, TUNED, EPOCHS, RATE = 2000, 20_000, 2, 0.02


@dataclass(frozen=True)
class Row:
    rule: str
    macs: float
    before: float
    after: list[float]
    seconds: float


def magnitude(model: nn.Module, structure: Structure) -> list[np.ndarray]:
    """Root of the sum of squares of all that leaves with a unit (Li et al. 2017)."""
    tensors = dict(model.named_parameters())
    out = []
    for group in structure.groups:
        total = torch.zeros(group.size, dtype=torch.float64)
        for m in group.members:
            if m.tensor in tensors:
                squares = tensors[m.tensor].detach().double().movedim(m.dim, 0) ** 2
                by_index = squares.reshape(len(squares), -1).sum(1)
                total += torch.stack([by_index[torch.from_numpy(i)].sum() for i in m.indices])
        out.append(total.sqrt().numpy())
    return out


def taylor(model: nn.Module, structure: Structure, calibration: CalibrationSet) -> list[np.ndarray]:
    """Mean square over samples of the loss's first-order change (Molchanov et al. 2019)."""
    readers = find_readers(model, structure)
    layers = [r.layer for r in readers.readers]
    weights = {x.parameter: dict(model.named_parameters())[x.parameter].detach() for x in layers}
    sums = [np.zeros((0, g.size)) for g in structure.groups]
    for batch in calibration.batches(250):
        found = linearise_loss(model, layers, weights, CalibrationSet([batch]), cross_entropy)
        here = [np.zeros((batch.n, g.size)) for g in structure.groups]
        for r in readers.readers:
            u = gate_gradients(found, r.layer.name, weights[r.layer.parameter]).numpy()
            for c in np.flatnonzero(r.group >= 0):
                here[r.group[c]][:, r.unit[c]] += u[:, c]
        sums = [np.concatenate(pair) for pair in zip(sums, here, strict=True)]
    return [(u**2).mean(0) for u in sums]


def by_score(structure: Structure, widths: Mapping[str, int], scores: Sequence[np.ndarray]) -> Plan:
    """The units of the lowest scores leave."""
    removed = {}
    for group, score in zip(structure.groups, scores, strict=True):
        gone = group.size - widths[group.name]
        removed[group.name] = np.argsort(score, kind="stable")[:gone].tolist()
    return Plan.of(structure, removed)


def tuned(model: nn.Module, x: Tensor, y: Tensor, seed: int) -> nn.Module:
    model = copy.deepcopy(model).train()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=RATE, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    steps = EPOCHS * -(-len(x) // 128)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order = torch.Generator().manual_seed(seed)
    for _ in range(EPOCHS):
        for index in torch.randperm(len(x), generator=order).split(128):
            optimizer.zero_grad()
            F.cross_entropy(model(x[index]), y[index]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


# of one class each, with what they need of the data
IMPORTANCES = ("GroupMagnitude", "BNScale", "LAMP", "GroupTaylor", "GroupHessian")


def torch_pruning(
    name: str, model: nn.Module, x: Tensor, y: Tensor, share: float, cost: str = "macs"
) -> tuple[nn.Module, float]:
    """The model after one importance, and the share of multiply-adds left.

    Parameters
    ----------
    cost : of which at most the share is left: "macs" or "parameters"
    """
    import torch_pruning as tp

    def costs() -> dict[str, float]:
        return dict(
            zip(("macs", "parameters"), tp.utils.count_ops_and_params(net, example), strict=True)
        )

    net = copy.deepcopy(model).eval()
    example = x[:1]
    whole = costs()
    last = [m for m in net.modules() if isinstance(m, nn.Linear)][-1]
    options = {"p": 2} if name in ("GroupMagnitude", "LAMP") else {}
    importance = getattr(tp.importance, f"{name}Importance")(**options)
    pruner = tp.pruner.MetaPruner(
        net,
        example,
        importance=importance,
        global_pruning=True,
        pruning_ratio=0.9,
        max_pruning_ratio=0.9,
        iterative_steps=60,
        ignored_layers=[last],
    )
    while costs()[cost] > share * whole[cost]:
        net.zero_grad()
        if name == "GroupTaylor":
            F.cross_entropy(net(x[:500]), y[:500]).backward()
        elif name == "GroupHessian":
            importance.zero_grad()
            for value in F.cross_entropy(net(x[:48]), y[:48], reduction="none"):
                net.zero_grad()
                value.backward(retain_graph=True)
                importance.accumulate_grad(net)
        pruner.step()
    return net, costs()["macs"] / whole["macs"]


def known(journal: Path) -> list[Row]:
    lines = journal.read_text().splitlines() if journal.exists() else []
    return [Row(**json.loads(line)) for line in lines]


def measure(name: str, share: float, tunings: int, journal: Path) -> list[Row]:
    """All rows, those of the journal first; new ones are written to it one by one."""
    rows = known(journal)
    flat = takes_flat_input(name)
    model = copy.deepcopy(load_trained(name, 0)).eval()
    x, y = data("train", flat=flat)
    test = data("test", flat=flat)
    pair = [(x[:CALIBRATION], y[:CALIBRATION])]
    calibration = CalibrationSet.collect(pair, torch.device("cpu"))

    def missing(rule: str) -> bool:
        return all(r.rule != rule for r in rows)

    def add(rule: str, small: nn.Module, macs: float, seconds: float) -> None:
        if missing(rule):
            part = x[:TUNED], y[:TUNED]
            after = [accuracy(tuned(small, *part, seed), *test) for seed in range(tunings)]
            rows.append(Row(rule, macs, accuracy(small, *test), after, seconds))
            with journal.open("a") as file:
                file.write(json.dumps(asdict(rows[-1])) + "\n")
            print(rows[-1], flush=True)

    add("dense", model, 1.0, 0.0)
    start = time.perf_counter()
    ours = optimize_structure(model, pair, macs=share, multiple=1)
    left = ours.after["macs"] / ours.before["macs"]
    if any(r.rule == "optiprune (default)" and r.macs != left for r in rows):
        raise SystemExit(f"{journal} has rows at other widths: remove it, and measure all anew")
    add("optiprune (default)", ours.model, left, time.perf_counter() - start)
    if missing("optiprune, objective global"):
        start = time.perf_counter()
        other = optimize_structure(
            model, pair, widths=ours.widths, objective="global", structure=ours.structure
        )
        add("optiprune, objective global", other.model, left, time.perf_counter() - start)
    rng = np.random.default_rng(0)
    scores: dict[str, Callable[[], list[np.ndarray]]] = {
        "magnitude": lambda: magnitude(model, ours.structure),
        "Taylor": lambda: taylor(model, ours.structure, calibration),
        "random": lambda: [rng.random(g.size) for g in ours.structure.groups],
    }
    args = (x[:2],)
    for rule, score in scores.items():
        again = f"{rule}, our refit"
        if not missing(rule) and not missing(again):
            continue
        start = time.perf_counter()
        plan = by_score(ours.structure, ours.widths, score())
        took = time.perf_counter() - start
        if missing(rule):
            bare = shrink(model, plan, args, structure=ours.structure, latency_repeats=0)
            add(rule, bare.model, left, took)
        if missing(again):
            start = time.perf_counter()
            refitted = refit_and_shrink(model, plan, pair, structure=ours.structure).model
            add(again, refitted, left, took + time.perf_counter() - start)
    if importlib.util.find_spec("torch_pruning") is not None:
        for importance in IMPORTANCES:
            rule = f"torch-pruning, {importance}"
            if missing(rule):
                start = time.perf_counter()
                net, macs = torch_pruning(
                    importance, model, x[:CALIBRATION], y[:CALIBRATION], share
                )
                add(rule, net, macs, time.perf_counter() - start)
    return rows


def spread(values: Sequence[float]) -> str:
    """Median, and the range of several."""
    if not values:
        return ""
    low, mid, high = (100 * v for v in (min(values), statistics.median(values), max(values)))
    return f"{mid:.2f}" if len(values) == 1 else f"{mid:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=["resnet20", "cnn-32-64-fc128"])
    parser.add_argument("--macs", type=float, default=0.5)
    parser.add_argument("--tunings", type=int, default=3)
    parser.add_argument("--report-only", action="store_true")
    options = parser.parse_args()
    for name in options.models:
        text = [
            f"# Which units stay: {name}\n",
            machine_line(),
            f"At most {options.macs:.0%} of the multiply-adds; {CALIBRATION} calibration images, "
            f"fine-tuning of {EPOCHS} epochs over {TUNED} images, SGD with momentum from {RATE}. "
            "Test accuracy (%) of 10,000 images; where there were several orders of the images, "
            "the median of fine-tunings with the smallest and the largest. Rows were measured one "
            "by one over several runs on a machine busy with other work: seconds are no "
            "comparison. Rules but those of torch-pruning keep the widths of the first row.\n",
            "| rule | multiply-adds | before fine-tuning | after | seconds to choose |",
            "|---|---:|---:|---:|---:|",
        ]
        journal = RESULTS / f"structure_choice_{name}.jsonl"
        rows = known(journal)
        if not options.report_only:
            rows = measure(name, options.macs, options.tunings, journal)
        for r in rows:
            text.append(
                f"| {r.rule} | {r.macs:.4f} | {100 * r.before:.2f} | {spread(r.after)} | "
                f"{r.seconds:.0f} |"
            )
        path = RESULTS / f"structure_choice_{name}.md"
        path.write_text("\n".join([*text, ""]))
        print(path.read_text())


if __name__ == "__main__":
    main()
