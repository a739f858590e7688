"""Speed and quality of the native solvers: ``python -m benchmarks.solver_kernels``.

Medians of CPU time on one thread, rates by the clock; trust the ratios, machines are noisy. Some
minutes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit

from benchmarks.machine import describe
from benchmarks.solver_portfolio import cut
from optiprune import solvers
from optiprune.problems import QUBO, CardinalityQP
from optiprune.solvers import Watch
from optiprune.solvers.native.chunks import Incumbent
from optiprune.solvers.native.exchange import ACCEPTED, TEMPERATURE
from optiprune.solvers.native.instance import aligned
from optiprune.solvers.native.search import search_at
from optiprune.solvers.native.start import prepare
from optiprune.solvers.stop import limits

SEED = 0


def gaussian(n: int, seed: int) -> CardinalityQP:
    """Q = X'X of correlated columns times mixed-sign weights, half of them kept."""
    r = np.random.default_rng([seed, n])
    w = r.standard_normal(n)
    x = r.standard_normal((n, n)) / np.sqrt(n)
    x = x @ (0.3 * np.eye(n) + 0.3 * r.standard_normal((n, n)) / np.sqrt(n))
    return CardinalityQP(0.5 * np.outer(w, w) * (x.T @ x), k=n // 2)


def layer(n: int, seed: int) -> CardinalityQP:
    """Removal loss of one output row: Gram matrix of rectified, correlated activations."""
    r = np.random.default_rng([seed, n, 1])
    w = r.standard_normal(n)
    mix = r.standard_normal((n // 4, n)) / np.sqrt(n // 4)
    x = np.maximum(
        r.standard_normal((2 * n, n // 4)) @ mix + 0.5 * r.standard_normal((2 * n, n)), 0
    )
    z = 0.5 * np.outer(w, w) * (x.T @ x) / (2 * n)
    return CardinalityQP(z, -2.0 * z.sum(axis=1), float(z.sum()), k=n // 2)


def seconds(f: Callable[[], object], repeat: int = 5) -> float:
    """Median CPU seconds."""
    out = []
    for _ in range(repeat):
        t = time.process_time()
        f()
        out.append(time.process_time() - t)
    return statistics.median(out)


@njit(cache=True, fastmath=True, nogil=True)
def _add_rows(J, h, rows):  # type: ignore[no-untyped-def]
    for i in rows:
        row = J[i]
        for m in range(h.shape[0]):
            h[m] += row[m]


def row_adder(n: int) -> tuple[Callable[[], object], int]:
    """Adds that many random rows of a float32 matrix to a vector: the floor of as many flips."""
    J = aligned(n, n, np.float32)
    J[:] = 1e-6
    h = np.zeros(n, np.float32)
    rows = np.random.default_rng(SEED).integers(0, n, 20_480_000 // n)
    _add_rows(J, h, rows[:10])
    return (lambda: _add_rows(J, h, rows)), len(rows)


def row_add(n: int) -> float:
    """Seconds for one row."""
    add, count = row_adder(n)
    return seconds(add) / count


def kernel_speed() -> None:
    print("\nTime per move, float32 [us]; 'row' is one row added to a vector, the floor of a flip")
    print(f"{'n':>6} {'row':>8} {'heat-bath proposal':>20} {'accepted':>9} {'flip proposal':>14} "
          f"{'accepted':>9} {'exchange tabu':>14} {'flip tabu':>10}")  # fmt: skip
    for n in (256, 1024, 4096):
        p = gaussian(n, SEED)
        q = QUBO(p.Q, -0.5 * p.Q.sum(axis=1))
        cells = [f"{n:>6} {1e6 * row_add(n):8.3f}"]
        steps = 40_000 if n < 4096 else 10_000
        for name, problem, options, wide in (
            ("annealing", p, {"restarts": 0, "precision": "float32"}, (20, 9)),
            ("annealing", q, {"restarts": 0, "precision": "float32"}, (14, 9)),
            ("tabu", p, {"iterations": 0, "precision": "float32"}, (14, 0)),
            ("tabu", q, {"iterations": 0, "precision": "float32"}, (10, 0)),
        ):
            solver = solvers.get(name, **options)
            many = steps if name == "annealing" else steps // 20
            # set-up and start drop out of the difference of two runs
            found = {}

            def run(limit: int, solver=solver, problem=problem, found=found) -> None:
                found["s"] = solver.solve(problem, stop=solvers.IterationLimit(limit))

            run(many)
            short = seconds(lambda run=run, many=many: run(2 * many), 3)
            a = found["s"].stats
            long = seconds(lambda run=run, many=many: run(6 * many), 3)
            b = found["s"].stats
            cells.append(f"{1e6 * (long - short) / (b.moves - a.moves):{wide[0]}.3f}")
            if wide[1]:
                share = (b.accepted - a.accepted) / (b.moves - a.moves)
                cells.append(f"{100 * share:{wide[1] - 1}.0f}%")
        print(" ".join(cells))


def quality() -> None:
    print("\nGap to the best found and time, defaults, medians of 3 instances x 2 seeds")
    print("'own cost': the k cheapest by the diagonal, as sorting a score does")
    names = ("own cost", "greedy", "local-search", "tabu", "annealing", "auto")
    print(f"{'family':>9} {'n':>5}  " + "  ".join(f"{name:>18}" for name in names))
    for family in (gaussian, layer):
        for n in (64, 256, 1024):
            energies: dict[str, list[tuple[int, float, float]]] = {name: [] for name in names}
            for i in range(3):
                p = family(n, i)
                for seed in range(2):
                    for name in names:
                        t = time.perf_counter()
                        if name == "own cost":
                            x = np.zeros(n, np.int8)
                            x[np.argsort(p.linear + p.diagonal())[: n // 2]] = 1
                            e = p.energy(x)
                        else:
                            e = solvers.get(name).solve(p, seed=seed).energy
                        energies[name].append((i, e, time.perf_counter() - t))
            best = [min(e for v in energies.values() for j, e, _ in v if j == i) for i in range(3)]
            cells = []
            for name in names:
                gap = statistics.median((e - best[i]) / abs(best[i]) for i, e, _ in energies[name])
                t = statistics.median(t for _, _, t in energies[name])
                cells.append(f"{100 * gap:7.2f}% {1e3 * t:6.1f} ms")
            print(f"{family.__name__:>9} {n:>5}  " + "  ".join(f"{c:>18}" for c in cells))


def throughput() -> None:
    print("\nMany small problems, solve_many, problems a second (share at the best energy found)")
    r = np.random.default_rng(SEED)
    problems = [layer(int(n), i) for i, n in enumerate(r.integers(16, 65, 500))]
    answers = {}
    rates = {}
    for name in ("greedy", "local-search", "tabu", "annealing", "auto"):
        solver = solvers.get(name)
        solver.solve_many(problems)
        for workers in (1, 2):
            t = time.perf_counter()
            answers[name, workers] = solver.solve_many(problems, seed=SEED, workers=workers)
            rates[name, workers] = len(problems) / (time.perf_counter() - t)
    best = np.min([[s.energy for s in a] for a in answers.values()], axis=0)
    for name in dict.fromkeys(name for name, _ in answers):
        e = np.array([s.energy for s in answers[name, 1]])
        same = all(
            a.energy == b.energy for a, b in zip(answers[name, 1], answers[name, 2], strict=True)
        )
        hit = float((e <= best + 1e-9 * (1 + np.abs(best))).mean())
        print(f"{name:>13}: {rates[name, 1]:7.0f}/s on 1 thread, {rates[name, 2]:7.0f}/s on 2 "
              f"({100 * hit:.1f} %); same answers: {same}")  # fmt: skip


def accepted_only() -> None:
    """At a temperature that accepts everything: what a move costs beside the rows it adds."""
    print("\nAccepted moves alone, float32 [us], and the share of that which the rows take")
    print(f"{'n':>6} {'row':>8} {'flip':>7} {'':>5} {'2 rows':>8} {'exchange':>9} {'':>5} "
          f"{'heat bath':>10} {'':>5} {'flip tabu':>10}")  # fmt: skip
    for n in (256, 1024, 4096):
        p = gaussian(n, SEED)
        q = QUBO(p.Q, -0.5 * p.Q.sum(axis=1))
        steps = 100_000 if n < 4096 else 20_000
        line = f"{n:>6}"
        for problem, moves, rows, wide in (
            (q, "metropolis", 1, 7), (p, "metropolis", 2, 9), (p, "heat-bath", 2, 10)
        ):  # fmt: skip
            watch = Watch(limits(None))
            incumbent = Incumbent(problem, watch)
            start = prepare(problem, None, watch, incumbent, "float32")
            search = search_at(start, np.random.SeedSequence(SEED), watch, incumbent, moves)
            assert search is not None
            search.state.floats[TEMPERATURE] = 1e30
            search._anneal(100, 1.0)
            add, count = row_adder(n)
            each, shares, floor = [], [], []
            for _ in range(9):  # in turns: what slows the machine down slows down both
                floor.append(seconds(add, 1) / count)
                before = int(search.state.counters[ACCEPTED])
                t = seconds(lambda s=search, m=steps: s._anneal(m, 1.0), 1)
                each.append(t / (int(search.state.counters[ACCEPTED]) - before))
                shares.append(rows * floor[-1] / each[-1])
            if moves != "heat-bath":
                line += f" {1e6 * rows * statistics.median(floor):8.3f}"
            line += f" {1e6 * statistics.median(each):{wide}.3f}"
            line += f" {100 * statistics.median(shares):4.0f}%"
        watch = Watch(limits(None))
        incumbent = Incumbent(q, watch)
        start = prepare(q, None, watch, incumbent, "float32")
        search = search_at(start, np.random.SeedSequence(SEED), watch, incumbent)
        assert search is not None
        t = seconds(lambda s=search, m=steps, n=n: s._tabu(m, n // 100, 10, 10**9, 10, 20))
        print(line + f" {1e6 * t / steps:10.3f}")


def two_threads(n: int) -> float:
    """What a second thread is worth to adding rows, which shares nothing with the first."""
    adders = [row_adder(n)[0] for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        rates = {}
        for workers in (1, 2):
            t = time.perf_counter()
            list(pool.map(lambda add: [add() for _ in range(40)], adders[:workers]))
            rates[workers] = workers / (time.perf_counter() - t)
    return rates[2] / rates[1]


def batches() -> None:
    print("\nBatches of a trained layer's rows, solve_many by auto; gap to a long run. Medians;")
    print("'machine': what a second thread is worth there to additions of rows, measured in turns")
    for n, count in ((64, 800), (256, 60)):
        for pure in (False, True):
            some = cut(n, pure, 20)
            problems = (some * (count // len(some) + 1))[:count]
            long = [solvers.get("tabu", iterations=60_000).solve(p, seed=9).energy for p in some]
            solver = solvers.get("auto")
            solver.solve_many(problems[:4])
            rates: dict[int, list[float]] = {1: [], 2: []}
            machine, cpu = [], []
            for _ in range(9):
                machine.append(two_threads(n))
                for workers in (1, 2):
                    t, c = time.perf_counter(), time.process_time()
                    found = solver.solve_many(problems, seed=SEED, workers=workers)
                    rates[workers].append(len(problems) / (time.perf_counter() - t))
                    if workers == 1:
                        one = found
                        cpu.append(len(problems) / (time.process_time() - c))
            best = np.resize(np.minimum(long, [s.energy for s in one[: len(some)]]), count)
            gap = np.mean([(s.energy - b) / abs(b) for s, b in zip(one, best, strict=True)])
            same = all(
                np.array_equal(a.x, b.x) and a.energy == b.energy
                for a, b in zip(one, found, strict=True)
            )
            gain = statistics.median(b / a for a, b in zip(*rates.values(), strict=True))
            print(
                f"n = {n}, {'pure' if pure else 'batch'}: {statistics.median(cpu):.0f}/CPU s; "
                f"gap {100 * gap:.3f} %; 2 threads {gain:.2f} times 1 "
                f"(machine {statistics.median(machine):.2f}); same answers: {same}",
                flush=True,
            )


def main() -> None:
    start = time.perf_counter()
    for key, value in describe().items():
        print(f"{key}: {value}")
    print(f"seed: {SEED}; one thread unless said")
    kernel_speed()
    quality()
    accepted_only()
    throughput()
    batches()
    print(f"\nin all {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
