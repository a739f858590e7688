"""Every registered solver on the same 50 pruning problems of n = 16, against their optima.

    python -m benchmarks.solver_agreement [--out benchmarks/results/solver_agreement.txt]

Each problem keeps k of the 16 weights of one output neuron, with the Gram matrix of correlated
activations: Q = (w w') o H has entries of both signs. The optimum comes from evaluating all
C(16, k) assignments in numpy, by no solver. A solver either finds it, or says honestly that it did
not: a claim of optimality, or a bound, that the enumeration refutes is a *false claim*, and the
exit status is 1. `tests/conformance` runs the same problems through the same solvers.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.machine import describe
from optiprune import solvers
from optiprune.problems import CardinalityQP
from optiprune.problems.generators import layer_problem
from optiprune.solvers import Status

N = 16
COUNT = 50
SEED = 2024
RESULT = Path(__file__).parent / "results" / "solver_agreement.txt"

# Solvers that stand for several back ends appear once for each of them. Names that are registered
# but missing here run with their defaults.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "pyomo + highs": ("pyomo", {"solver": "highs"}),
    "pyomo + scip": ("pyomo", {"solver": "scip"}),
    "dimod + simulated annealing": (
        "dimod",
        {"sampler": "dwave.samplers:SimulatedAnnealingSampler", "reads": 50},
    ),
    "dimod + tabu": (
        "dimod",
        {"sampler": "dwave.samplers:TabuSampler", "parameters": {"timeout": 5}},
    ),
    "dimod + steepest descent": (
        "dimod",
        {"sampler": "dwave.samplers:SteepestDescentSolver", "reads": 50},
    ),
    "dimod + exact": ("dimod", {"sampler": "dimod:ExactSolver"}),
    "dimod + exact CQM": ("dimod", {"sampler": "dimod:ExactCQMSolver"}),
}


def variants() -> dict[str, tuple[str, dict[str, Any]]]:
    """Label -> (registered name, options), every registered solver that can run here included."""
    covered = {name for name, _ in VARIANTS.values()}
    plain: dict[str, tuple[str, dict[str, Any]]] = {
        name: (name, {}) for name in solvers.names() if name not in covered
    }
    if find_spec("ortools") is None:
        plain.pop("cp-sat")  # ortools is not among the dependencies
    return {**plain, **VARIANTS}


def pruning_problems(count: int = COUNT, n: int = N, seed: int = SEED) -> list[CardinalityQP]:
    """Layer problems with n/2 - 2 .. n/2 + 2 weights kept, from weakly to strongly correlated."""
    children = np.random.SeedSequence(seed).spawn(count)
    return [
        layer_problem(n, n // 2 - 2 + i % 5, correlation=0.3 + 0.1 * (i % 6), seed=children[i])
        for i in range(count)
    ]


def enumerated_optimum(problem: CardinalityQP) -> float:
    """The least energy over all assignments that keep k weights."""
    supports = np.array(list(combinations(range(problem.n), int(problem.k[0]))))
    X = np.zeros((len(supports), problem.n), dtype=np.int8)
    np.put_along_axis(X, supports, 1, axis=1)
    return float(problem.energies(X).min())


@dataclass
class Agreement:
    """How one solver fared."""

    label: str
    found: int = 0
    proven: int = 0
    missed: int = 0
    excess: float = 0.0  # the worst relative excess over the optimum
    false_claims: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def judge(
    label: str,
    solve: Callable[[CardinalityQP, int], solvers.Solution],
    problems: Iterable[tuple[CardinalityQP, float]],
) -> Agreement:
    """Run a solver over (problem, optimum) pairs and check every claim that it makes."""
    out = Agreement(label)
    for i, (problem, optimum) in enumerate(problems):
        t = time.perf_counter()
        s = solve(problem, i)
        out.seconds.append(time.perf_counter() - t)
        tolerance = 1e-6 * max(float(np.abs(problem.dense()).max()), abs(optimum))
        wrong = []
        if s.status.has_solution:
            solvers.check_solution(problem, s)
        if s.energy < optimum - tolerance:
            wrong.append(f"energy {s.energy} below the optimum {optimum}")
        if s.bound is not None and s.bound > optimum + tolerance:
            wrong.append(f"bound {s.bound} above the optimum {optimum}")
        found = s.energy <= optimum + tolerance
        if s.status is Status.OPTIMAL and not found:
            wrong.append(f"claims OPTIMAL at {s.energy}, the optimum is {optimum}")
        if s.status is Status.INFEASIBLE:
            wrong.append("claims that a feasible problem is infeasible")
        out.false_claims += [f"problem {i}: {w}" for w in wrong]
        out.found += found
        out.proven += found and s.status is Status.OPTIMAL
        out.missed += not found
        if not found:
            out.excess = max(out.excess, (s.energy - optimum) / abs(optimum))
    return out


def table(rows: list[Agreement]) -> str:
    """The results as aligned text."""
    head = ("solver", "optimal", "proven", "honest misses", "worst excess", "false claims", "ms")
    body = [
        (
            r.label,
            f"{r.found}/{len(r.seconds)}",
            str(r.proven),
            str(r.missed),
            f"{100 * r.excess:.1f} %" if r.missed else "-",
            str(len(r.false_claims)),
            f"{1e3 * median(r.seconds):.2f}",
        )
        for r in rows
    ]
    widths = [max(len(line[c]) for line in [head, *body]) for c in range(len(head))]
    lines = []
    for line in [head, tuple("-" * w for w in widths), *body]:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run all solvers, print and write the table; 1 if any solver made a false claim."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--count", type=int, default=COUNT)
    given = parser.parse_args(arguments)
    pairs = [(p, enumerated_optimum(p)) for p in pruning_problems(given.count)]
    rows = []
    for label, (name, options) in variants().items():
        solver = solvers.get(name, **options)
        solver.solve(pairs[0][0], seed=0)  # compiled kernels and imports are not timed

        def solve(
            problem: CardinalityQP, seed: int, solver: solvers.Solver = solver
        ) -> solvers.Solution:
            return solver.solve(problem, seed=seed)

        rows.append(judge(label, solve, pairs))
        print(f"{label}: {rows[-1].found}/{len(pairs)}", file=sys.stderr)
    back_ends = ", ".join(f"{p} {version(p)}" for p in ("pyomo", "PySCIPOpt", "dwave-samplers"))
    about = "\n".join(f"{k}: {v}" for k, v in {**describe(), "back ends": back_ends}.items())
    text = (
        f"{given.count} pruning problems, n = {N}, seed {SEED}; optima by enumeration; solver seed "
        f"= problem number; ms is the median of one solve, the model's building included.\n"
        f"Made by: python -m benchmarks.solver_agreement\n{about}\n\n{table(rows)}\n"
    )
    for r in rows:
        text += "".join(f"FALSE CLAIM by {r.label}: {claim}\n" for claim in r.false_claims)
    print(text)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(text)
    return int(any(r.false_claims for r in rows))


if __name__ == "__main__":
    raise SystemExit(main())
