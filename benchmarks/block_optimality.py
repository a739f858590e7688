"""How far from proven optimal the row blocks of a real layer are.

    python -m benchmarks.block_optimality [--rows 25] [--limit 20] [--density 0.5]

Four layers of a block of SmolLM2-135M on 32 windows of 512 tokens (dense inputs): the support of
each by ADMM, then for sampled rows the batch that reconstruction would hand to a solver:
the 32 kept weights that are cheapest to lose and the 32 pruned ones that gain most, all other kept
weights re-fitted. `exact` tries to prove the best choice within the limit; `auto`, the default of
reconstruction, answers beside it. Gaps are relative to what the batch's choice can change: the
energy of the best answer below that of the start. One thread, wall seconds. Writes
benchmarks/results/block_optimality.md.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import describe
from benchmarks.models.language import load_smollm2, smollm2_model
from optiprune import solvers
from optiprune.admm import admm_support
from optiprune.curvature import CalibrationSet, find_layers
from optiprune.curvature.gram import collect_grams
from optiprune.engine.joint_search import within_budgets
from optiprune.engine.row_subset import SubsetBatch, subset_batch
from optiprune.solvers import Status, TimeLimit

RESULT = Path(__file__).parent / "results" / "block_optimality.md"
BLOCK = "model.layers.8."
LAYERS = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")
DAMPING = 1e-4


def batches(rows: int, size: int, density: float) -> list[tuple[str, SubsetBatch]]:
    """(layer, batch) of sampled rows."""
    model = load_smollm2()
    layers = find_layers(model, include=[BLOCK + name for name in LAYERS])
    data = CalibrationSet.collect(smollm2_model().calibration(32), torch.device("cpu"))
    dense = {layer.parameter: model.get_parameter(layer.parameter).detach() for layer in layers}
    grams = collect_grams(model, layers, dense, None, data, chunk=2)
    found = []
    for number, layer in enumerate(layers):
        gram, w = grams[layer.name], dense[layer.parameter].double()
        b = gram.cross(w)
        like = torch.zeros(layer.shape, dtype=torch.bool)
        like.view(-1)[: round(density * layer.numel)] = True
        support, _ = admm_support(
            gram.H, b, w, lambda score, like=like: within_budgets(score, like, False, None)
        )
        ridge = DAMPING * float(gram.H[0].diagonal().mean())
        H = gram.H[0].numpy() + ridge * np.eye(layer.cols)
        target = (b + ridge * w).numpy()
        rng = np.random.default_rng([0, number])
        for row in rng.choice(layer.rows, rows, replace=False):
            batch = subset_batch(H, target[row], support[row].numpy(), size)
            if batch is not None:
                found.append((layer.name.removeprefix(BLOCK), batch))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=25, help="rows of each of the four layers")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--limit", type=float, default=20.0, help="seconds a proof may take")
    parser.add_argument("--density", type=float, default=0.5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    by_layer: dict[str, list[tuple[bool, float, float, float]]] = {}
    exact, auto = solvers.get("exact"), solvers.get("auto")
    for name, batch in batches(args.rows, args.size, args.density):
        proof = exact.solve(batch.problem, x0=batch.x0, stop=TimeLimit(args.limit), seed=0)
        quick = auto.solve(batch.problem, x0=batch.x0, seed=0)
        best = min(proof.energy, quick.energy)
        room = max(-best, 1e-300)
        bound = -np.inf if proof.bound is None else proof.bound
        gap = (best - min(bound, best)) / room
        ours = (quick.energy - best) / room
        proven = proof.status is Status.OPTIMAL
        by_layer.setdefault(name, []).append((proven, gap, ours, proof.stats.wall_s))
        print(f"{name} {proven} gap {gap:.2e} auto {ours:.2e}", flush=True)
    lines = [
        "# Row blocks against proven optima",
        "",
        f"Made by `python -m benchmarks.block_optimality`: {args.size} weights a block, "
        f"{args.density:.0%} density, {args.limit:g} s a proof. Gaps in % of what the block's "
        "choice gains over ADMM's support.",
        "",
        "| layer | blocks | proven | median s | median gap of the rest | `auto` at the best known "
        "| worst of `auto` |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    everything = [row for rows in by_layer.values() for row in rows]
    for name, rows in [*by_layer.items(), ("all", everything)]:
        rest = [gap for proven, gap, _, _ in rows if not proven]
        middle = f"{100 * statistics.median(rest):.2f} %" if rest else "-"
        share = statistics.mean(proven for proven, *_ in rows)
        hit = statistics.mean(ours <= 1e-6 for _, _, ours, _ in rows)
        worst = max(ours for _, _, ours, _ in rows)
        seconds = statistics.median(s for *_, s in rows)
        lines.append(
            f"| {name} | {len(rows)} | {share:.0%} | {seconds:.2f} | {middle} | {hit:.0%} "
            f"| {100 * worst:.2f} % |"
        )
    lines += ["", *(f"- {key}: {value}" for key, value in describe().items()), ""]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
