"""Proofs of best-subset problems (`MIQP`) from trained layers: ours beside Gurobi and enumeration.

    python -m benchmarks.exact_subset [--count 2] [--limit 20] [--out ...]

An instance is one row of a trained layer: n weights around the cut of Wanda's score at a random
density (as the batches of `optiprune.bench.instances.cutting`), the row's other weights as that cut
leaves them, and the row's error over the n weights to be minimised with k of them kept and
re-fitted: H is the inputs' Gram matrix on the batch. M is twice the row's largest weight, which
Gurobi needs: it gets rows ``-M x <= w <= M x``, as the adapter for Pyomo writes them.

One thread; wall seconds, model building included; a run without a proof counts as the limit. All
proven optima of an instance are compared, and no bound may pass a best energy; the exit status is 1
if one does. The licence in gurobipy's wheel takes 200 variables of a quadratic model, so n = 64.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks.machine import describe
from optiprune import solvers
from optiprune.bench.instances.networks import NETWORKS, available, trained_network
from optiprune.problems import MIQP
from optiprune.solvers import Solution, Status, TimeLimit

RESULT = Path(__file__).parent / "results" / "exact_subset.md"
SIZES = (32, 64, 128)
SHARES = (4, 2)  # k = n / share
ENUMERABLE = 1 << 24
GUROBI_N = 99


def row_subset(network: str, n: int, k: int, index: int) -> MIQP:
    """Instance ``index``: keep k of n weights of a row; energies in units as in `cutting`."""
    rng = np.random.default_rng(zlib.crc32(f"subset/{network}/{n}/{index}".encode()))
    layers = NETWORKS[network].layers
    layer = layers[int(rng.integers(len(layers)))]
    density = float(rng.uniform(0.2, 0.6))
    net = trained_network(network)
    X, W = net.inputs(layer), net.weights(layer)
    H = X.T @ X / len(X)
    w = W[int(rng.integers(len(W)))]
    alive = np.flatnonzero(H.diagonal() > 0)
    order = alive[np.argsort(-np.abs(w[alive]) * np.sqrt(H.diagonal()[alive]), kind="stable")]
    half = n // 2
    cut = int(np.clip(round(density * len(order)), half, len(order) - half))
    batch = np.sort(order[cut - half : cut + half])
    # 1/2 (u - r)'H(u - r) over u on the batch: r is what u has to make up for
    rest = np.zeros(len(w))
    rest[order[cut - half :]] = w[order[cut - half :]]
    target = H @ rest
    unit = float(np.mean(0.5 * w[batch] ** 2 * H.diagonal()[batch]))
    return MIQP(
        H[np.ix_(batch, batch)] / unit,
        target[batch] / unit,
        k=k,
        M=2.0 * float(np.abs(w).max()),
        offset=0.5 * float(rest @ target) / unit,
    )


def run(label: str, problem: MIQP, limit: float) -> tuple[Solution, float] | None:
    """(answer, seconds), or None if the solver is not asked at this size."""
    if label == "exact":
        solver: solvers.Solver = solvers.get("exact")
    elif label == "gurobi":
        if problem.n > GUROBI_N:
            return None
        solver = solvers.get("pyomo", solver="gurobi_direct")
    else:
        if math.comb(problem.n, problem.k) > ENUMERABLE:
            return None
        solver = solvers.get("exhaustive", max_assignments=32 * ENUMERABLE)
    began = time.perf_counter()
    found = solver.solve(problem, stop=TimeLimit(limit))
    return found, time.perf_counter() - began


def compare(network: str, n: int, k: int, count: int, limit: float) -> tuple[list[str], list[str]]:
    """(rows of the table, disagreements)."""
    labels = ["exact", *(["gurobi"] if find_spec("gurobipy") else []), "exhaustive"]
    answers: dict[str, list[tuple[Solution, float]]] = {label: [] for label in labels}
    wrong = []
    for i in range(count):
        problem = row_subset(network, n, k, i)
        here = []
        for label in labels:
            got = run(label, problem, limit)
            if got is not None:
                answers[label].append(got)
                here.append((label, got[0]))
        best = min(s.energy for _, s in here)
        slack = 1e-5 * max(1.0, abs(best))  # Gurobi's tolerances are 1e-6 of the terms
        for label, s in here:
            if (s.status is Status.OPTIMAL and s.energy > best + slack) or (
                s.bound is not None and s.bound > best + slack
            ):
                wrong.append(f"{network}-{n}-{k}-{i}: {label} {s.energy} bound {s.bound}, {best}")
    rows = []
    for label, found in answers.items():
        if not found:
            continue
        seconds = [t if s.status is Status.OPTIMAL else limit for s, t in found]
        gaps = [s.gap for s, _ in found if s.status is not Status.OPTIMAL and s.gap is not None]
        nodes = [s.stats.extra["nodes"] for s, _ in found if "nodes" in s.stats.extra]
        proven = sum(s.status is Status.OPTIMAL for s, _ in found)
        left = f"{100 * statistics.median(gaps):.2f} %" if gaps else ""
        rows.append(
            f"| {network} | {n} | {k} | {label} | {proven}/{len(found)} "
            f"| {statistics.median(seconds):.2f} | {max(seconds):.2f} | {left} "
            f"| {round(statistics.median(nodes)) if nodes else ''} |"
        )
        print(rows[-1], flush=True)
    return rows, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2, help="instances of a network, n and k")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds a proof")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    networks, notes = available()
    for label in ("exact", "gurobi", "exhaustive"):  # compile first
        if label != "gurobi" or find_spec("gurobipy"):
            run(label, row_subset(networks[0], 16, 4, 0), args.limit)
    rows: list[str] = []
    wrong: list[str] = []
    for n in SIZES:
        for network in networks:
            for share in SHARES:
                made, disagree = compare(network, n, n // share, args.count, args.limit)
                rows += made
                wrong += disagree
    lines = [
        "# Proofs of best-subset problems from trained layers",
        "",
        f"Made by `python -m benchmarks.exact_subset --count {args.count} --limit {args.limit:g}`; "
        "one thread, wall seconds. 'gap left' is the median over runs without a proof, relative to "
        "the energy, which is what the row's error comes to with k weights kept and re-fitted. "
        f"Gurobi takes part up to n = {GUROBI_N} (licence of the wheel), enumeration up to "
        f"{ENUMERABLE} supports.",
        "",
        "| network | n | k | solver | proven | median s | longest s | gap left | nodes |",
        "|---|---:|---:|---|---:|---:|---:|---:|---:|",
        *rows,
        "",
        *(f"- {note}" for note in notes),
        *(f"- {k}: {v}" for k, v in describe().items()),
        f"- disagreements: {'; '.join(wrong) or 'none'}",
        "",
    ]
    args.out.write_text("\n".join(lines))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
