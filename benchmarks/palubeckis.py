"""`auto` on the Palubeckis instances: ``python -m benchmarks.palubeckis [--limit S] [NAMES]``.

Each until its best known value or the limit, on one thread; wall-clock and CPU seconds.
"""

from __future__ import annotations

import argparse
import time

from benchmarks.machine import describe
from optiprune import solvers
from optiprune.problems import PALUBECKIS_BEST_KNOWN, palubeckis_instance

SEED = 0
NAMES = [
    *(f"p3000.{i}" for i in range(1, 6)),
    *(f"p4000.{i}" for i in range(1, 4)),
    "p5000.1",
    "p6000.1",
    "p7000.1",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--limit", type=float, default=300.0)
    args = parser.parse_args()
    for key, value in describe().items():
        print(f"{key}: {value}")
    print(f"seed: {SEED}; limit {args.limit:g} s each; one thread\n")
    solver = solvers.get("auto", effort=1e6)  # until a criterion stops it
    solver.solve(palubeckis_instance("p3000.1"), stop=solvers.TimeLimit(1))  # compile
    for name in args.names:
        problem, known = palubeckis_instance(name), PALUBECKIS_BEST_KNOWN[name]
        t = time.process_time()
        s = solver.solve(
            problem, seed=SEED, stop=solvers.Target(-known) | solvers.TimeLimit(args.limit)
        )
        t = time.process_time() - t
        gap = (known + s.energy) / known
        print(
            f"{name}: {-s.energy:.0f} of {known} ({100 * gap:.4f} % below) in "
            f"{s.stats.trajectory[-1][0]:.1f} s, stopped at {s.stats.wall_s:.1f} s by "
            f"{s.stats.stop_reason} ({t:.1f} CPU s), {s.stats.moves} moves",
            flush=True,
        )


if __name__ == "__main__":
    main()
