"""Which solver for which problem: ``python -m benchmarks.solver_portfolio [--sizes 64 256]``.

What `auto` goes by. Mean gap to the best energy known from all runs (long ones included), and CPU
time of one solve on one thread. ``batch`` and ``pure`` are cut from a trained network (see
`benchmarks.models`): a batch of one row's weights as pruning makes them, in the field of all the
others, and the bare loss of removing half of such a batch. The others are generators.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from benchmarks.machine import describe
from optiprune import solvers
from optiprune.problems import (
    QUBO,
    CardinalityQP,
    fisher_problem,
    layer_problem,
    palubeckis,
    planted_cardinality,
)

SEED = 0
INSTANCES = 3
SEEDS = 2

Family = dict[str, list[Any]]


@cache
def _layers() -> list[tuple[np.ndarray, np.ndarray]]:
    """(weights, Gram matrix of the inputs) of the two widest layers of a trained network."""
    import torch

    from benchmarks.models import data, load_trained

    model = load_trained("mlp-784-512-512-10", 0)
    images, _ = data("train")
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)][:2]
    seen: dict[int, torch.Tensor] = {}
    hooks = [
        m.register_forward_hook(lambda _m, a, _o, i=i: seen.__setitem__(i, a[0].detach()))
        for i, m in enumerate(linear)
    ]
    with torch.no_grad():
        model(images[:8000])
    for h in hooks:
        h.remove()
    out = []
    for i, m in enumerate(linear):
        x = seen[i].flatten(1).double().numpy()
        out.append((m.weight.detach().double().numpy(), x.T @ x / len(x)))
    return out


def cut(n: int, pure: bool, count: int = INSTANCES) -> list[CardinalityQP]:
    """Problems of the n weights of a row next to the threshold of 50 % by |w| * |input|."""
    problems = []
    for i in range(count):
        weights, gram = _layers()[i % 2 if n <= 512 else 0]
        if n > weights.shape[1]:
            return []
        w = weights[np.random.default_rng([SEED, n, i]).integers(len(weights))]
        score = np.abs(w) * np.sqrt(np.diag(gram))
        order = np.argsort(score, kind="stable")
        middle = len(w) // 2
        at = np.sort(order[middle - n // 2 : middle + n // 2])
        kept = score >= score[order[middle]]
        h, v = gram[np.ix_(at, at)], np.where(kept, w, 0.0)
        Q = 0.5 * np.outer(w[at], w[at]) * h
        if pure:
            problems.append(CardinalityQP(Q, -2.0 * Q.sum(axis=1), float(Q.sum()), k=n // 2))
        else:
            g = gram @ (v - w)
            p = CardinalityQP(Q, w[at] * (g[at] - h @ v[at]), k=int(kept[at].sum()))
            now = kept[at].astype(np.int8)
            # 0 is the mask as it stands, so that a gap is a share of what can be won
            problems.append(CardinalityQP(p.Q, p.linear, -p.energy(now), k=p.k))
    return problems


def cardinality(n: int) -> Family:
    made = {
        "batch": cut(n, pure=False),
        "pure": cut(n, pure=True),
        "layer": [layer_problem(n, n // 2, seed=i) for i in range(INSTANCES)],
        "fisher": [fisher_problem(n, n // 2, seed=i)[0] for i in range(INSTANCES)],
        "planted": [planted_cardinality(n, n // 2, seed=i).problem for i in range(INSTANCES)],
    }
    return {family: problems for family, problems in made.items() if problems}


def unconstrained(n: int) -> Family:
    half = [layer_problem(n, n // 2, seed=i) for i in range(INSTANCES)]
    return {
        "palubeckis": [palubeckis(n, 80, 100 + i) for i in range(INSTANCES)],
        "layer": [QUBO(p.Q, 0.7 * p.linear, p.offset) for p in half],
    }


def measure(
    sizes: Sequence[int],
    make: Callable[[int], Family],
    candidates: Callable[[int], list[tuple[str, dict[str, Any]]]],
    long: list[tuple[str, dict[str, Any]]],
) -> None:
    for n in sizes:
        families = make(n)
        names = candidates(n)
        best = {
            family: [min(_energy(name, o, p, 99) for name, o in long) for p in problems]
            for family, problems in families.items()
        }
        rows = []
        for name, options in names:
            cells = {}
            for family, problems in families.items():
                solver = solvers.get(name, **options)
                solver.solve(problems[0])
                t = time.process_time()
                found = [solver.solve_many(problems, seed=s) for s in range(SEEDS)]
                t = (time.process_time() - t) / (SEEDS * len(problems))
                e = np.array([[s.energy for s in many] for many in found])
                best[family] = np.minimum(best[family], e.min(axis=0)).tolist()
                cells[family] = e, t
            rows.append((name, options, cells))
        print(f"\nn = {n}: gap, share of runs at the best, CPU ms")
        print(f"{'':38}" + "".join(f"{family:>26}" for family in families))
        for name, options, cells in rows:
            text = name + " " + ", ".join(f"{k}={v}" for k, v in options.items())
            line = f"{text:38}"
            for family, (e, t) in cells.items():
                b = np.array(best[family])
                gap = float(np.mean((e - b) / np.maximum(np.abs(b), 1e-300)))
                hit = float(np.mean(e <= b + 1e-9 * np.abs(b)))
                line += f"{100 * gap:10.3f}% {100 * hit:4.0f}% {1e3 * t:8.2f}"
            print(line, flush=True)


def _energy(name: str, options: dict[str, Any], problem: Any, seed: int) -> float:
    return solvers.get(name, **options).solve(problem, seed=seed).energy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256, 512, 1024])
    sizes = parser.parse_args().sizes
    for key, value in describe().items():
        print(f"{key}: {value}")
    print(f"seed: {SEED}; {INSTANCES} instances, {SEEDS} seeds; one thread")

    def exchanges(n: int) -> list[tuple[str, dict[str, Any]]]:
        steps = 20 * n
        return [
            ("tabu", {"iterations": steps // 4}),
            ("tabu", {"iterations": steps}),
            ("tabu", {"iterations": 3 * steps}),
            ("annealing", {"restarts": 1, "sweeps": 50}),
            ("annealing", {"restarts": 1, "sweeps": 200}),
            ("annealing", {"restarts": 1, "sweeps": 800}),
            ("tabu", {}),
            ("annealing", {}),
            ("auto", {}),
        ]

    print("\nFixed cardinality, half kept")
    measure(
        sizes,
        cardinality,
        exchanges,
        [("tabu", {"iterations": 40_000}), ("annealing", {"sweeps": 2000, "restarts": 1})],
    )
    print("\nWithout constraints")
    measure(
        [n for n in sizes if n >= 128],
        unconstrained,
        lambda n: [
            ("tabu", {"iterations": 100 * n}),
            ("tabu", {}),
            ("annealing", {}),
            ("auto", {}),
        ],
        [("tabu", {"iterations": 400_000})],
    )


if __name__ == "__main__":
    main()
