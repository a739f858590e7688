"""Many problems at once: the solver `torch` beside the native `annealing`, in the same run.

    python -m benchmarks.device_batch [--out benchmarks/results/device_batch.txt] [--short]

Both make the same moves by the same schedule: as many sweeps, as many restarts (side by side as
replicas in `torch`), temperatures by the same shares of accepted moves. What differs is how: numba
kernels, one problem after another, or tensor operations on whole batches. One thread on the CPU,
where the time is CPU time, the median of three runs; on a GPU wall-clock time, transfers and the
float64 check of every answer included.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe
from optiprune import solvers
from optiprune.problems import QUBO
from optiprune.problems.generators import layer_nm_problem, layer_problem
from optiprune.solvers import Solution

RESULT = Path(__file__).parent / "results" / "device_batch.txt"
SWEEPS, RESTARTS, SEED = 30, 8, 0


def _layer(n: int) -> Callable[[int], Any]:
    return lambda seed: layer_problem(n, n // 2, samples=n, seed=seed)


def _qubo(n: int) -> Callable[[int], Any]:
    def make(seed: int) -> QUBO:
        rng = np.random.default_rng([seed, n])
        return QUBO(rng.normal(size=(n, n)), rng.normal(size=n))

    return make


# family, maker, problems on a CPU, problems on a GPU
FAMILIES: list[tuple[str, Callable[[int], Any], int, int]] = [
    ("layer n = 16", _layer(16), 600, 16384),
    ("layer n = 32", _layer(32), 400, 16384),
    ("layer n = 64", _layer(64), 200, 8192),
    ("layer n = 128", _layer(128), 120, 4096),
    ("layer n = 256", _layer(256), 48, 1024),
    ("2:4 n = 64", lambda seed: layer_nm_problem(64, 2, 4, samples=64, seed=seed), 200, 8192),
    ("QUBO n = 64", _qubo(64), 200, 8192),
]


def timed(
    solver: solvers.Solver, problems: Sequence[Any], clock: Callable[[], float], runs: int
) -> tuple[float, list[Solution]]:
    """Median seconds of ``solve_many``, and the answers."""
    seconds = []
    for _ in range(runs):
        begin = clock()
        answers = solver.solve_many(problems, seed=SEED)
        seconds.append(clock() - begin)
    return statistics.median(seconds), answers


def gap(answers: Sequence[Solution], best: np.ndarray) -> float:
    """Mean of (energy - best) / |best|."""
    energies = np.array([s.energy for s in answers])
    return float(((energies - best) / np.maximum(np.abs(best), 1e-12)).mean())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write the table here as well")
    parser.add_argument("--short", action="store_true", help="a tenth of the problems, one run")
    options = parser.parse_args(arguments)
    import torch

    torch.set_num_threads(1)
    cuda = torch.cuda.is_available()
    lines: list[str] = []

    def say(line: str = "") -> None:
        print(line, flush=True)
        lines.append(line)

    for key, value in describe().items():
        say(f"{key}: {value}")
    say(f"device: {torch.cuda.get_device_name() if cuda else 'no CUDA device: CPU rows only'}")
    say(f"seed: {SEED}; {SWEEPS} sweeps, {RESTARTS} restarts; one thread")
    say()
    say(
        "Problems a second (of CPU time; on CUDA of wall-clock time), and mean gap to the best that"
    )
    say("annealing with 4 x the sweeps or any run here found; 'ratio': torch over annealing")
    say(f"{'family':>14} {'annealing':>16} {'torch, cpu':>16} {'ratio':>6} {'torch, cuda':>16} "
        f"{'ratio':>6}  same answers on both devices")  # fmt: skip
    native = solvers.get("annealing", sweeps=SWEEPS, restarts=RESTARTS)
    long = solvers.get("annealing", sweeps=4 * SWEEPS, restarts=RESTARTS)
    batched = {
        device: solvers.get("torch", sweeps=SWEEPS, replicas=RESTARTS, device=device)
        for device in ("cpu", "cuda")
    }
    ratios = []
    runs = 1 if options.short else 3
    for family, make, few, many in FAMILIES:
        few = max(2, few // 10) if options.short else few
        problems = [make(seed) for seed in range(few)]
        for solver in (native, batched["cpu"]):
            solver.solve_many(problems[:2])  # compile and load first
        took_native, by_native = timed(native, problems, time.process_time, runs)
        took_cpu, by_cpu = timed(batched["cpu"], problems, time.process_time, runs)
        reference = long.solve_many(problems, seed=SEED + 1)
        best = np.min([[s.energy for s in a] for a in (by_native, by_cpu, reference)], axis=0)
        ratios.append(took_native / took_cpu)
        cells = [
            f"{family:>14}",
            f"{few / took_native:8.0f} {100 * gap(by_native, best):5.2f} %",
            f"{few / took_cpu:8.0f} {100 * gap(by_cpu, best):5.2f} %",
            f"{ratios[-1]:6.2f}",
        ]
        if cuda:
            more = [make(seed) for seed in range(many)]
            batched["cuda"].solve_many(more[:2])
            took, by_cuda = timed(batched["cuda"], more, time.perf_counter, runs)
            some = batched["cuda"].solve_many(problems, seed=SEED)
            same = sum((a.x == b.x).all() for a, b in zip(some, by_cpu, strict=True))
            cells += [
                f"{many / took:8.0f} {100 * gap(by_cuda[:few], best):5.2f} %",
                f"{many / took * took_native / few:6.2f}",
                f" {same} of {few}",
            ]
        say(" ".join(cells))
    say()
    say(verdict(ratios, cuda))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def verdict(ratios: Sequence[float], cuda: bool) -> str:
    """What the table says, in words."""
    low, high = min(ratios), max(ratios)
    if high < 1:
        words = f"On one CPU core torch is slower than annealing everywhere: {1 / high:.1f} to "
        words += f"{1 / low:.1f} times."
    elif low > 1:
        words = f"On one CPU core torch is {low:.1f} to {high:.1f} times as fast as annealing."
    else:
        words = f"On one CPU core torch has {low:.2f} to {high:.2f} times the rate of annealing."
    return words if cuda else words + " No GPU was at hand: its rate is not known."


if __name__ == "__main__":
    main()
