"""SmolLM2-135M without some of its blocks, and without a fifth of its hidden units and heads.

    python -m benchmarks.structure_language [--parts blocks units speed] [--remove 3 6 9]

16 calibration windows of 512 tokens (6 of them rank selections of blocks), 8 test windows of other
articles. Blocks: ours against magnitude (sum of squares of a block's weights), block influence
(1 - cosine of what goes in and what comes out, Men et al. 2024, arXiv 2403.03853) and two draws
at random. Units: every MLP keeps 1232 of its 1536 hidden units, and 18 of the 90 heads of keys and
values leave with their queries; ours against magnitude and random at the same widths, as they are
and with our refit. Speed: medians of forwards of one window on one thread, in turns with the dense
model; what was removed does not matter to it, only how much. Writes
benchmarks/results/structure_language_*.md.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.machine import machine_line
from benchmarks.models.language import load_smollm2, token_windows
from benchmarks.structure_choice import by_score, magnitude
from optiprune.curvature import CalibrationSet
from optiprune.curvature.losses import logits_of
from optiprune.shrinking import BlockSearch, optimize_structure, refit_and_shrink
from optiprune.shrinking.influence import block_influence
from optiprune.structure import (
    GateError,
    Plan,
    confirmed,
    find_blocks,
    find_structure,
    remove_blocks,
    shrink,
    total,
)
from optiprune.structure.timing import alternated

RESULTS = Path(__file__).parent / "results"
ARTICLES, CALIBRATION, RANKING, TEST = 60, 16, 6, 8
HIDDEN, HEADS = 1232, 18


def pairs(windows: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Tokens with the tokens that follow them; the last has none."""
    following = torch.full_like(windows, -100)
    following[:, :-1] = windows[:, 1:]
    return [(windows, following)]


@torch.no_grad()
def perplexity(model: nn.Module, windows: Tensor) -> float:
    """exp of the mean cross-entropy of all tokens but the first of each window, in nats."""
    total = 0.0
    for w in windows.split(1):
        logits = logits_of(model(w))[0, :-1].double()
        total += float(F.cross_entropy(logits, w[0, 1:], reduction="sum"))
    return math.exp(total / (windows.shape[0] * (windows.shape[1] - 1)))


def measured(small: nn.Module, test: Tensor) -> str:
    """Perplexity and parameters, as cells of a table."""
    size = sum(p.numel() for p in small.parameters())
    return f"{perplexity(small, test):.2f} | {size:,}"


def blocks(removals: Sequence[int]) -> list[str]:
    dense = load_smollm2()
    calibration = token_windows(None, ARTICLES, CALIBRATION)
    test = token_windows(ARTICLES, None, TEST)
    args = (calibration[:2],)
    known = find_blocks(dense, args)
    names = [b.name for b in known]
    weights = [
        sum(float((p.detach().double() ** 2).sum()) for p in dense.get_submodule(n).parameters())
        for n in names
    ]
    seen = CalibrationSet.collect(pairs(calibration), torch.device("cpu"))
    scores = {"magnitude": weights, "block influence": block_influence(dense, known, seen, 1)}
    out = [
        "| blocks removed | rule | perplexity | parameters | seconds |",
        "|---:|---|---:|---:|---:|",
    ]

    def row(m: int, rule: str, small: nn.Module, took: float) -> None:
        out.append(f"| {m} | {rule} | {measured(small, test)} | {took:.0f} |")
        print(out[-1], flush=True)

    row(0, "dense", dense, 0.0)
    start = time.perf_counter()
    search = BlockSearch(dense, pairs(calibration), rank_samples=RANKING, chunk=1)
    once = time.perf_counter() - start
    print(f"quadratic: {once:.0f} s", flush=True)
    for m in removals:
        start = time.perf_counter()
        ours = search.without(m, solutions=6, exchanges=2)
        row(m, "optiprune", ours.model, time.perf_counter() - start)
        print(ours.removed, len(ours.tried), flush=True)
        for rule, score in scores.items():
            gone = [names[i] for i in np.argsort(score, kind="stable")[:m]]
            row(m, rule, remove_blocks(dense, gone, args, blocks=known).model, 0.0)
        for seed in range(2):
            picks = np.random.default_rng(seed).choice(len(names), m, replace=False)
            gone = [names[i] for i in picks]
            small = remove_blocks(dense, gone, args, blocks=known).model
            row(m, f"random, seed {seed}", small, 0.0)
    return [*out, f"\nBefore that {once:.0f} seconds, once for all numbers of blocks."]


def units() -> list[str]:
    dense = load_smollm2()
    calibration = token_windows(None, ARTICLES, CALIBRATION)
    test = token_windows(ARTICLES, None, TEST)
    args = (calibration[:2, :64],)
    structure = confirmed(dense, find_structure(dense, args), args, {})
    heads = [g for g in structure.groups if g.kind == "heads"]
    hidden = [g for g in structure.groups if g.kind == "neurons"]
    print(len(heads), "groups of heads,", len(hidden), "of hidden units", flush=True)
    start = time.perf_counter()
    data = pairs(calibration)
    each = 5 * 64 * 576 + 3 * 64 * 576  # a head of keys and values with three of queries, in all
    chosen = optimize_structure(
        dense,
        data,
        parameters=total(structure.parameters, {}) - HEADS * each,
        include=[g.name for g in heads],
        refit=False,
        minimum=0.5,
        curve="predicted",
        chunk=1,
        structure=structure,
    )
    widths = {**chosen.widths, **{g.name: HIDDEN for g in hidden}}
    ours = optimize_structure(dense, data, widths=widths, chunk=1, structure=structure)
    took = time.perf_counter() - start
    out = [
        "| rule | perplexity | parameters | seconds |",
        "|---|---:|---:|---:|",
    ]

    def row(rule: str, small: nn.Module, spent: float) -> None:
        out.append(f"| {rule} | {measured(small, test)} | {spent:.0f} |")
        print(out[-1], flush=True)

    row("dense", dense, 0.0)
    row("optiprune", ours.model, took)
    plain = shrink(dense, ours.plan, args, structure=structure, latency_repeats=0)
    row("optiprune, without refit", plain.model, took)
    rng = np.random.default_rng(0)
    rules = {
        "magnitude": magnitude(dense, structure),
        "random": [rng.random(g.size) for g in structure.groups],
    }
    for rule, score in rules.items():
        plan = by_score(structure, widths, score)
        bare = shrink(dense, plan, args, structure=structure, latency_repeats=0)
        row(rule, bare.model, 0.0)
        try:
            again = refit_and_shrink(dense, plan, data, chunk=1, structure=structure)
        except GateError as error:
            out.append(f"| {rule}, our refit | refused: {error} | | |")
            continue
        row(f"{rule}, our refit", again.model, 0.0)
    return out


@torch.no_grad()
def speed(removals: Sequence[int]) -> list[str]:
    dense = load_smollm2()
    window = token_windows(ARTICLES, None, 1)
    args = (window[:, :64],)
    known = find_blocks(dense, args)
    structure = find_structure(dense, args)
    heads = [g for g in structure.groups if g.kind == "heads"]
    gone = {g.name: [0] for g in heads[:HEADS]}
    hidden = [g for g in structure.groups if g.kind == "neurons"]
    gone |= {g.name: range(g.size - HIDDEN) for g in hidden}
    plan = Plan.of(structure, gone)
    cases = {"dense": dense}
    for m in removals:
        names = [b.name for b in known[-m - 1 : -1]]
        cases[f"{m} blocks removed"] = remove_blocks(dense, names, args, blocks=known).model
    small = shrink(dense, plan, args, structure=structure, latency_repeats=0).model
    cases[f"{HIDDEN} hidden units a layer, {HEADS} heads removed"] = small
    out = [
        "| model | parameters | dense, ms | smaller, ms | speed-up |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, model in cases.items():
        before, after = alternated(
            lambda: dense(window), lambda m=model: m(window), repeats=15, warmup=2
        )
        size = sum(p.numel() for p in model.parameters())
        out.append(
            f"| {name} | {size:,} | {1e3 * before:.0f} | {1e3 * after:.0f} | {before / after:.2f} |"
        )
        print(out[-1], flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parts", nargs="+", default=["blocks", "units", "speed"])
    parser.add_argument("--remove", nargs="+", type=int, default=[3, 6, 9])
    options = parser.parse_args()
    torch.set_num_threads(1)
    about = (
        f"{machine_line()}\nSmolLM2-135M-Instruct, {CALIBRATION} calibration windows and {TEST} "
        "test windows of 512 tokens of Wikipedia; one thread.\n"
    )
    parts = {
        "blocks": ("# Blocks that leave\n", lambda: blocks(options.remove)),
        "units": ("# Hidden units and heads\n", units),
        "speed": ("# Speed\n", lambda: speed(options.remove)),
    }
    for part in options.parts:
        title, measure = parts[part]
        lines = measure()
        path = RESULTS / f"structure_language_{part}.md"
        path.write_text("\n".join([title, about, *lines, ""]))


if __name__ == "__main__":
    main()
