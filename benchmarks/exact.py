"""Proofs and bounds on batches cut from trained layers: ours beside Gurobi, SCIP, HiGHS, CP-SAT.

    python -m benchmarks.exact [--count 5] [--limit 60] [--out benchmarks/results/exact.md]

The pruning suite of `optiprune.bench` (families layer, pure, global; networks whose data are here).
One thread; wall seconds, model building included; a run without a proof counts as the limit. SCIP,
HiGHS and CP-SAT get the first instance of each family at n = 64 only, since each takes the whole
limit. All proven optima of an instance are compared; the exit status is 1 if two disagree. Gurobi
takes part where gurobipy is installed (the licence in its wheel is enough), SCIP with pyscipopt,
CP-SAT with ortools.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from benchmarks.machine import describe
from optiprune import solvers
from optiprune.bench.instances.cutting import FAMILIES, cut
from optiprune.bench.instances.networks import available
from optiprune.problems import CardinalityQP
from optiprune.solvers import Status, TimeLimit

RESULT = Path(__file__).parent / "results" / "exact.md"
SIZES = (64, 128)
BOUNDED = (256, 1024)


def peers() -> dict[str, tuple[solvers.Solver, int]]:
    """Solver by label, with the number of instances of a family that it gets at n = 64."""
    out: dict[str, tuple[solvers.Solver, int]] = {"exact": (solvers.get("exact"), 1 << 30)}
    if find_spec("gurobipy"):
        gurobi = solvers.get("pyomo", solver="gurobi_direct", linearise=False)
        out["gurobi"] = (gurobi, 1 << 30)
    if find_spec("pyscipopt"):
        out["scip"] = (solvers.get("pyomo", solver="scip"), 1)
    out["highs"] = (solvers.get("highs"), 1)
    if find_spec("ortools"):
        out["cp-sat"] = (solvers.get("cp-sat"), 1)
    return out


def prove(
    names: list[tuple[str, str]], n: int, count: int, limit: float
) -> tuple[list[str], list[str]]:
    """(rows of the table, disagreements)."""
    rows, wrong = [], []
    for network, family in names:
        problems = [cut(network, family, n, i) for i in range(count)]
        best: dict[int, float] = {}
        for label, (solver, most) in peers().items():
            if n > SIZES[0] and most == 1:
                continue
            seconds, proven, gaps = [], 0, []
            for i, problem in enumerate(problems[:most]):
                began = time.perf_counter()
                found = solver.solve(problem, stop=TimeLimit(limit))
                took = time.perf_counter() - began
                if found.status is Status.OPTIMAL:
                    proven += 1
                    seconds.append(took)
                    other = best.setdefault(i, found.energy)
                    if abs(other - found.energy) > 1e-6 * max(1.0, abs(other)):
                        wrong.append(f"{network}-{family}-{n}-{i}: {label} {found.energy}, {other}")
                else:
                    seconds.append(limit)
                    if found.gap is not None:
                        gaps.append(found.gap)
            rest = f"{100 * statistics.median(gaps):.2f} %" if gaps else ""
            rows.append(
                f"| {network} {family} | {n} | {label} | {proven}/{len(problems[:most])} "
                f"| {statistics.median(seconds):.2f} | {max(seconds):.2f} | {rest} |"
            )
            print(rows[-1], flush=True)
    return rows, wrong


def bounds(names: list[tuple[str, str]], limit: float) -> list[str]:
    """Gap between the best heuristic value and the best bound."""
    rows = []
    for network, family in names:
        for n in BOUNDED:
            problem = cut(network, family, n, 0)
            energy = best_known(problem)
            lower = solvers.bound(problem, time_limit=limit)
            rows.append(
                f"| {network} {family} | {n} | {energy:.4f} | {lower.value:.4f} "
                f"| {100 * lower.gap(energy):.2f} % | {lower.method} | {lower.seconds:.1f} |"
            )
            print(rows[-1], flush=True)
    return rows


def best_known(problem: CardinalityQP) -> float:
    """The best of several long annealing runs."""
    solver = solvers.get("annealing", sweeps=1000, restarts=2)
    return min(solver.solve(problem, seed=s).energy for s in range(2))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5, help="instances of a family and size")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds a proof or a bound")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    networks, notes = available()
    names = [(network, family) for network in networks for family in FAMILIES]
    warm = cut(networks[0], FAMILIES[0], 20, 0)
    for solver, _ in peers().values():
        solver.solve(warm)
    lines = [
        "# Proofs and bounds on batches cut from trained layers",
        "",
        f"Made by `python -m benchmarks.exact --count {args.count} --limit {args.limit:g}`; one "
        "thread, wall seconds. 'gap left' is the median over runs without a proof.",
        "",
        "| family | n | solver | proven | median s | longest s | gap left |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    wrong: list[str] = []
    for n in SIZES:
        rows, disagree = prove(names, n, args.count, args.limit)
        lines += rows
        wrong += disagree
    lines += [
        "",
        "Best heuristic value against `solvers.bound`:",
        "",
        "| family | n | best known | bound | gap | by | s |",
        "|---|---:|---:|---:|---:|---|---:|",
        *bounds(names, args.limit),
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
