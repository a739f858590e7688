"""Layer reconstruction error of searched masks against Wanda's, mask only.

    python -m benchmarks.layer_error

prunes a 784-512-512-10 network trained on Fashion-MNIST to 50 % in every output row, by Wanda's
score (Sun et al. 2023) and by `optiprune.engine.reconstruction` started from Wanda's mask with the
same row budgets, and writes benchmarks/results/layer_error.{md,json}: errors by layer on the
calibration images and on the test images, accuracy, seconds; medians over seeds. A second table
compares solvers on a sample of the rows.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks.machine import describe
from benchmarks.models import data, load_trained
from optiprune import solvers
from optiprune.config import Config
from optiprune.curvature.data import CalibrationSet
from optiprune.curvature.gram import collect_grams, wanda_scores
from optiprune.curvature.layers import PrunableLayer, find_layers
from optiprune.engine.reconstruction import reconstruct
from optiprune.engine.row_search import row_problem

NETWORK = "mlp-784-512-512-10"
RESULTS = Path(__file__).parent / "results"
SOLVER: dict[str, Any] = {"name": "auto"}  # the default
COMPARED: tuple[dict[str, Any], ...] = (
    {"name": "greedy"},
    SOLVER,
    {"name": "annealing", "sweeps": 100, "restarts": 1},
    {"name": "annealing", "sweeps": 20, "restarts": 1},
    {"name": "annealing", "sweeps": 400, "restarts": 1},
    {"name": "local-search"},
    {"name": "tabu", "iterations": 200},
    {"name": "tabu", "iterations": 1000},
)


def wanda_masks(
    layers: list[PrunableLayer], weights: dict[str, Tensor], norms: dict[str, Tensor], share: float
) -> dict[str, Tensor]:
    """The best ``share`` of every output row by Wanda's score."""
    masks = {}
    for layer in layers:
        score = wanda_scores(layer, weights[layer.parameter], norms[layer.name])
        rank = score.reshape(layer.rows, layer.cols).argsort(1, descending=True).argsort(1)
        masks[layer.parameter] = (rank < round(share * layer.cols)).reshape(layer.shape)
    return masks


def errors(
    model: nn.Module,
    layers: list[PrunableLayer],
    dense: dict[str, Tensor],
    masks: dict[str, Tensor],
    images: CalibrationSet,
    inputs: str,
) -> list[float]:
    """Error of every layer, summed over rows; ``inputs`` of the dense or of this pruned model."""
    pruned = {name: dense[name] * m for name, m in masks.items()}
    grams = collect_grams(model, layers, dense, pruned if inputs == "pruned" else None, images)
    out = []
    for layer in layers:
        w = dense[layer.parameter]
        now = pruned[layer.parameter].reshape(layer.rows, layer.cols)
        out.append(float(grams[layer.name].error(now, w.reshape(layer.rows, layer.cols)).sum()))
    return out


@torch.no_grad()
def accuracy(model: nn.Module, weights: dict[str, Tensor], X: Tensor, y: Tensor) -> float:
    return float((functional_call(model, weights, (X,)).argmax(1) == y).double().mean())


def one_seed(seed: int, args: argparse.Namespace) -> dict[str, Any]:
    model = load_trained(NETWORK, seed)
    layers = find_layers(model)
    dense = {layer.parameter: layer.modules[0].weight.detach() for layer in layers}  # type: ignore[operator]
    X, _ = data("train")
    Xt, yt = data("test")
    pick = np.random.default_rng(seed).permutation(len(X))
    cpu = torch.device("cpu")
    train = CalibrationSet.collect([X[pick[: args.samples]]], cpu)
    held = CalibrationSet.collect([X[pick[args.samples : args.samples + 2000]]], cpu)
    test = CalibrationSet.collect([Xt], cpu)
    norms = {k: g.norms() for k, g in collect_grams(model, layers, dense, None, train).items()}
    wanda = wanda_masks(layers, dense, norms, 1 - args.sparsity)
    out: dict[str, Any] = {"seed": seed, "dense_accuracy": accuracy(model, dense, Xt, yt)}
    for inputs in ("dense", "pruned"):
        config = Config.from_table(
            {
                "seed": seed,
                "workers": args.workers,
                "prune": {"sparsity": args.sparsity, "refit": False},
                "curvature": {"inputs": inputs, "chunk": 1000},
                "solver": args.solver,
            }
        )
        start, cpu_start = time.perf_counter(), time.process_time()
        result = reconstruct(
            model,
            layers,
            wanda,
            train,
            held,
            config,
            solvers.from_table(args.solver),
            np.random.SeedSequence(seed),
        )
        row: dict[str, Any] = {
            "wall_s": time.perf_counter() - start,
            "cpu_s": time.process_time() - cpu_start,
            "rows_rejected": sum(r.rows_changed - r.rows_accepted for r in result.records),
        }
        for label, masks in (("wanda", wanda), ("ours", result.masks)):
            assert all(int(m.sum()) == int(wanda[name].sum()) for name, m in masks.items()), (
                "the budgets differ"
            )
            row[label] = {
                "calibration": errors(model, layers, dense, masks, train, inputs),
                "test": errors(model, layers, dense, masks, test, inputs),
                "accuracy": accuracy(
                    model, {name: dense[name] * m for name, m in masks.items()}, Xt, yt
                ),
            }
        out[inputs] = row
    out["layers"] = [layer.name for layer in layers]
    return out


def compare_solvers(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Solvers on every 32nd row of the two hidden layers, seed 0: CPU time, error against Wanda."""
    model = load_trained(NETWORK, 0)
    layers = find_layers(model)[:2]
    dense = {layer.parameter: layer.modules[0].weight.detach() for layer in layers}  # type: ignore[operator]
    X, _ = data("train")
    pick = np.random.default_rng(0).permutation(len(X))[: args.samples]
    train = CalibrationSet.collect([X[pick]], torch.device("cpu"))
    grams = collect_grams(model, layers, dense, None, train)
    wanda = wanda_masks(layers, dense, {k: g.norms() for k, g in grams.items()}, 1 - args.sparsity)
    work = []
    for layer in layers:
        gram, w = grams[layer.name], dense[layer.parameter].double()
        mask = wanda[layer.parameter]
        start = gram.error(w * mask, w)
        H, b = gram.H[0].float().numpy(), gram.cross(w).numpy()
        index = np.arange(layer.cols)
        rows = range(0, layer.rows, 32)
        problems = [
            (row_problem(H, b[r], w[r].numpy(), mask[r].numpy(), index, None), mask[r].numpy())
            for r in rows
        ]
        work.append((layer.name, problems, float(start[list(rows)].sum())))
    out = []
    for table in COMPARED:
        try:
            solver = solvers.from_table(table)
        except solvers.SolverError as e:
            out.append({"solver": table, "error": str(e)})
            continue
        first, x0 = work[0][1][0]
        solver.solve(first, x0=x0.astype(np.int8), seed=0)  # compiles
        row: dict[str, Any] = {"solver": table}
        for name, problems, before in work:
            begin = time.process_time()
            gain = sum(
                solver.solve(p, x0=x0.astype(np.int8), seed=i).energy
                for i, (p, x0) in enumerate(problems)
            )
            row[name] = {
                "ms_a_row": 1e3 * (time.process_time() - begin) / len(problems),
                "lower": -gain / before,
            }
        out.append(row)
        print(row, flush=True)
    return out


def markdown(report: dict[str, Any]) -> str:
    seeds: list[dict[str, Any]] = report["seeds"]
    names = [*seeds[0]["layers"], "total"]

    def value(seed: dict[str, Any], inputs: str, who: str, where: str, i: int) -> float:
        numbers: list[float] = seed[inputs][who][where]
        return sum(numbers) if i == len(numbers) else numbers[i]

    def mid(f: Callable[[dict[str, Any]], float]) -> float:
        return median(f(s) for s in seeds)

    lines = [
        "# Layer reconstruction error, mask only",
        "",
        f"`{report['command']}`: {NETWORK} trained on Fashion-MNIST, {report['sparsity']:.0%} of "
        f"every output row pruned, {report['samples']} calibration images (2000 more judge the "
        f"steps), medians of seeds {', '.join(str(s['seed']) for s in seeds)}.",
        "",
        f"Solver: `{json.dumps(report['solver'])}`. "
        + "; ".join(f"{k}: {v}" for k, v in report["machine"].items())
        + ".",
        "",
        "Error: squared difference to the dense layer's output, summed over outputs, mean over "
        "images. 'dense' inputs: both masks judged on the dense model's activations (the same "
        "problem for both). 'pruned': each on the activations of its own pruned layers before.",
        "",
        "| inputs | layer | Wanda | ours | lower by | Wanda, test | ours, test | lower by, test |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for inputs in ("dense", "pruned"):
        for i, name in enumerate(names):
            cells = []
            for where in ("calibration", "test"):
                a = mid(lambda s: value(s, inputs, "wanda", where, i))  # noqa: B023
                b = mid(lambda s: value(s, inputs, "ours", where, i))  # noqa: B023
                low = mid(
                    lambda s: (
                        1
                        - value(s, inputs, "ours", where, i)  # noqa: B023
                        / value(s, inputs, "wanda", where, i)  # noqa: B023
                    )
                )
                cells += [f"{a:.4g}", f"{b:.4g}", f"{low:.1%}"]
            lines.append(f"| {inputs} | {name} | " + " | ".join(cells) + " |")
    lines += ["", "| inputs | accuracy: dense | Wanda | ours | seconds, wall | CPU |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for inputs in ("dense", "pruned"):
        lines.append(
            f"| {inputs} | {mid(lambda s: s['dense_accuracy']):.2%} "
            f"| {mid(lambda s: s[inputs]['wanda']['accuracy']):.2%} "  # noqa: B023
            f"| {mid(lambda s: s[inputs]['ours']['accuracy']):.2%} "  # noqa: B023
            f"| {mid(lambda s: s[inputs]['wall_s']):.1f} "  # noqa: B023
            f"| {mid(lambda s: s[inputs]['cpu_s']):.1f} |"  # noqa: B023
        )
    if report["solvers"]:
        lines += [
            "",
            "Solvers on every 32nd row of the two hidden layers (seed 0), one thread: CPU time a "
            "row and how much lower the error is than Wanda's.",
            "",
            "| solver | fc1: ms a row | lower by | fc2: ms a row | lower by |",
            "|---|---:|---:|---:|---:|",
        ]
        for row in report["solvers"]:
            head = f"| `{json.dumps(row['solver'])}` "
            if "error" in row:
                lines.append(f"{head}| not available | | | |")
                continue
            a, b = row["fc1"], row["fc2"]
            lines.append(
                f"{head}| {a['ms_a_row']:.1f} | {a['lower']:.2%} | {b['ms_a_row']:.1f} "
                f"| {b['lower']:.2%} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--solver", type=json.loads, default=SOLVER, help="a table, as JSON")
    parser.add_argument("--no-compare", action="store_true", help="skip the table of solvers")
    args = parser.parse_args()
    torch.set_num_threads(1)
    compared = [] if args.no_compare else compare_solvers(args)
    seeds = []
    for seed in args.seeds:
        seeds.append(one_seed(seed, args))
        print(json.dumps(seeds[-1]), flush=True)
    report = {
        "command": "python -m benchmarks.layer_error",
        "sparsity": args.sparsity,
        "samples": args.samples,
        "workers": args.workers,
        "solver": args.solver,
        "machine": describe(),
        "seeds": seeds,
        "solvers": compared,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "layer_error.json").write_text(json.dumps(report, indent=1) + "\n")
    text = markdown(report)
    (RESULTS / "layer_error.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
