"""The solver `torch`: annealing of whole batches of problems as tensor operations."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from optiprune.problems import QUBO, CardinalityQP, Problem, as_binary
from optiprune.solvers.base import BaseSolver, Capabilities, Outcome, Watch, as_seed
from optiprune.solvers.errors import SolverOptionError
from optiprune.solvers.options import NEVER, check_whole
from optiprune.solvers.result import Solution, Status
from optiprune.solvers.stop import Stop, limits

from .backend import available_bytes, check_device, refuse_size, resolve_device
from .layout import Item, Shape, bytes_per_problem, group_by_shape, movable, needs_double, padded
from .pool import run_all, stop_all
from .run import Answer, BatchRun, cheap_assignment
from .temperature import Temperatures

__all__ = ["TorchAnnealing"]

# entries (rows x variables) of a batch on a CPU: more of them leave its cache
_CPU_ENTRIES = 1 << 17


@dataclass(frozen=True)
class TorchAnnealing(BaseSolver):
    """Simulated annealing of thousands of problems at once, on a GPU or on tensors of the CPU.

    `CardinalityQP` by heat-bath exchanges inside a group, `QUBO` by flips: the moves of
    `annealing`, every step carried out for all replicas of all problems of a batch as a few tensor
    operations of torch. Made for ``solve_many`` on a GPU; on a CPU `annealing` is faster. Restarts
    run side by side as replicas. Temperatures fall geometrically, between those at which a share
    ``start_acceptance`` and ``end_acceptance`` of the moves would be accepted at a first local
    optimum; the best state of every replica descends once more at the end.

    ``solve_many`` stacks problems of similar size (the smaller ones padded) into batches that fit
    the device's memory. A problem's answer depends on its own data and seed alone: its random
    numbers are a hash of (seed, replica, step), and no operation rounds differently in another
    batch. A time limit holds for each batch, since its problems run at the same time.

    Source: as `annealing`; random numbers by Philox2x32 of Salmon, Moraes, Dror and Shaw,
    "Parallel random numbers: as easy as 1, 2, 3" (SC'11).

    Attributes
    ----------
    device : "auto" (CUDA if torch has one, else the CPU), "cpu", "cuda" or "cuda:N"
    sweeps : steps per pruned variable (per variable for a QUBO); None chooses by size
    replicas : independent searches of each problem, side by side; None chooses by size
    precision : of the fields inside the search; "auto" takes float32 unless that would lose
        information. Energies returned are float64 in any case.
    batch : problems in one batch at most; None: as many as fit (on a CPU, its cache). It changes
        the speed and no answer.
    start_acceptance, end_acceptance : shares of moves that set the temperatures
    t_start, t_end : temperatures in units of the energy, instead of those
    """

    device: str = "auto"
    sweeps: int | None = None
    replicas: int | None = None
    precision: str = "auto"
    batch: int | None = None
    start_acceptance: float = 0.6
    end_acceptance: float = 0.01
    t_start: float | None = None
    t_end: float | None = None

    name: ClassVar[str] = "torch"
    capabilities: ClassVar[Capabilities] = Capabilities(frozenset({QUBO, CardinalityQP}))

    def __post_init__(self) -> None:
        check_device(self.device)
        check_whole(self, sweeps=1, replicas=1, batch=1)
        if self.precision not in ("auto", "float32", "float64"):
            raise SolverOptionError(
                f"precision must be 'auto', 'float32' or 'float64', got {self.precision!r}"
            )
        if not 0 < self.end_acceptance <= self.start_acceptance < 1:
            raise SolverOptionError(
                "0 < end_acceptance <= start_acceptance < 1 is needed, got "
                f"{self.start_acceptance} and {self.end_acceptance}"
            )
        for key in ("t_start", "t_end"):
            t = getattr(self, key)
            if t is not None and not 0 < t < math.inf:
                raise SolverOptionError(f"{key} must be positive (or None), got {t}")
        if self.t_start is not None and self.t_end is not None and self.t_end > self.t_start:
            raise SolverOptionError(f"t_end = {self.t_end} is above t_start = {self.t_start}")

    def solve_many(
        self,
        problems: Sequence[Problem],
        *,
        x0s: Sequence[npt.ArrayLike | None] | None = None,
        seed: int | np.random.SeedSequence = 0,
        stop: Stop | None = None,
        workers: int = 1,
    ) -> list[Solution]:
        """Solve all problems, in batches; ``stop`` holds for each problem.

        Problem i is seeded with the i-th child of ``seed``, as by every solver: its answer is that
        of ``solve(problems[i], seed=child)``, bit for bit, unless a time limit cuts it short.
        ``workers`` batches run at the same time on a CPU; on a GPU they follow one another.
        ``stats.wall_s`` of a problem is the time of its batch. After Ctrl-C the list is complete
        all the same, as described for `BaseSolver.solve_many`.

        Raises
        ------
        BackendMissingError
            Without torch, or without the device that was asked for.
        SolverError
            If one problem alone does not fit the device's memory.
        ValueError
            If ``x0s`` has another length or workers < 1; else as `solve`.
        """
        starts = [None] * len(problems) if x0s is None else list(x0s)
        if len(starts) != len(problems):
            raise ValueError(f"{len(problems)} problems but {len(starts)} starts")
        if workers < 1:
            raise ValueError(f"workers must be >= 1, got {workers}")
        limit = limits(stop)
        interrupt = threading.Event()
        items = []
        for i, (problem, x0, child) in enumerate(
            zip(problems, starts, as_seed(seed).spawn(len(problems)), strict=True)
        ):
            self.require_support(problem)
            x = None if x0 is None else as_binary(x0, problem.n)
            items.append(self._item(i, problem, x, child, Watch(limit, interrupt=interrupt)))
        solutions: list[Solution | None] = [None] * len(items)

        def finish(item: Item, outcome: Outcome) -> None:
            solutions[item.index] = self._finish(item.problem, item.x0, item.watch, outcome)

        self._solve_items(items, workers, interrupt, finish, restart_clocks=True)
        return [s for s in solutions if s is not None]

    def _solve(
        self,
        problem: Any,
        x0: npt.NDArray[np.int8] | None,
        seed: np.random.SeedSequence,
        watch: Watch,
    ) -> Outcome:
        interrupt = watch.interrupt or threading.Event()
        watch.interrupt = interrupt
        outcomes: list[Outcome] = []

        def finish(_: Item, outcome: Outcome) -> None:
            outcomes.append(outcome)

        item = self._item(0, problem, x0, seed, watch)
        self._solve_items([item], 1, interrupt, finish, restart_clocks=False)
        return outcomes[-1]

    # the parts of a call ------------------------------------------------------------------------

    def _item(
        self,
        index: int,
        problem: Any,
        x0: npt.NDArray[np.int8] | None,
        seed: np.random.SeedSequence,
        watch: Watch,
    ) -> Item:
        exchange = isinstance(problem, CardinalityQP)
        n = problem.n
        movers = movable(problem) if exchange else n
        words = seed.generate_state(2, np.uint32)
        double = self.precision == "float64"
        if self.precision == "auto" and movers:
            double = needs_double(problem)
        grouped = exchange and problem.n_groups > 1
        shape = Shape(exchange, padded(n), self._replicas(n), double, grouped, x0 is not None)
        sweeps = self._sweeps(n, movers) if self.sweeps is None else self.sweeps
        sweeps = min(sweeps, NEVER // max(1, movers))
        return Item(
            index, problem, x0, (int(words[0]), int(words[1])), watch, shape, movers, sweeps
        )

    def _replicas(self, n: int) -> int:
        """By default more where problems are small: there the best is found by trying again."""
        return max(1, min(16, 1024 // max(1, n))) if self.replicas is None else self.replicas

    def _sweeps(self, n: int, movers: int) -> int:
        """By default more where few variables move."""
        base = 100 if n < 512 else 200
        return int(base * min(5.0, max(1.0, n / max(1, 2 * movers))))

    def _solve_items(
        self,
        items: list[Item],
        workers: int,
        interrupt: threading.Event,
        finish: Callable[[Item, Outcome], None],
        *,
        restart_clocks: bool,
    ) -> None:
        """Batches of items, each item's outcome handed to ``finish`` as soon as there is one.

        ``restart_clocks``: an item's time begins when its batch does.
        """
        still = [item for item in items if not item.movers]
        for item in still:
            x = cheap_assignment(item.problem)
            item.watch.offer(item.problem.energy(x))
            reason = item.watch.reason_to_stop()
            reason = reason if reason == "target" else "completed"
            finish(item, Outcome(x, Status.FEASIBLE, item.watch.stats(reason)))
        moving = [item for item in items if item.movers]
        if not moving:
            return
        if all(item.watch.time_left <= 0 for item in moving):
            for item in moving:
                finish(item, self._outcome(item, None, "time", True, {}))
            return
        device = resolve_device(self.device)
        batches = self._batches(moving, device)
        temperatures = Temperatures(
            self.t_start, self.t_end, self.start_acceptance, self.end_acceptance
        )

        def run(batch: list[Item]) -> None:
            begun = not interrupt.is_set()
            if restart_clocks:
                for item in batch:
                    item.watch.start = time.perf_counter()
            runner = BatchRun(batch, device, temperatures)
            default = "interrupted"
            try:
                if begun:
                    runner.execute()
                    default = "completed"
            except KeyboardInterrupt:
                stop_all(interrupt)
            try:
                end(batch, runner.collect(default), begun)
            except KeyboardInterrupt:
                stop_all(interrupt)
                end(batch, runner.collect(default), begun)

        def end(batch: list[Item], answers: list[Answer], begun: bool) -> None:
            extra = {"device": str(device), "batch": len(batch)}
            for item, answer in zip(batch, answers, strict=True):
                finish(item, self._outcome(item, answer.x, answer.reason, begun, extra))

        run_all(run, batches, workers if device.type == "cpu" else 1, interrupt)

    def _outcome(
        self,
        item: Item,
        x: npt.NDArray[np.int8] | None,
        reason: str,
        begun: bool,
        extra: dict[str, Any],
    ) -> Outcome:
        """FEASIBLE with what was found or, of a problem that was begun, with the simplest start."""
        watch = item.watch
        if x is None and begun:
            feasible = item.x0 is not None and item.problem.violation(item.x0) == 0
            x = item.x0 if feasible else cheap_assignment(item.problem)
        if x is None:
            return Outcome(None, Status.NO_INCUMBENT, watch.stats(reason, **extra))
        watch.offer(item.problem.energy(x))
        watch.restarts = item.shape.replicas - 1
        return Outcome(x, Status.FEASIBLE, watch.stats(reason, **extra))

    def _batches(self, items: list[Item], device: Any) -> list[list[Item]]:
        """Cut into batches that fit; the order within a shape is by the length of the schedule."""
        free = available_bytes(device)
        out = []
        for shape, together in group_by_shape(items).items():
            widest = max(
                together[-1].problem.k.size if shape.exchange else 0,  # type: ignore[union-attr]
                max(i.problem.k.size for i in together) if shape.grouped else 0,  # type: ignore[union-attr]
            )
            each = bytes_per_problem(shape, max(i.movers for i in together), widest)
            if each > free:
                raise refuse_size(max(i.problem.n for i in together), each, free, str(device))
            size = free // each
            if device.type == "cpu":
                size = min(size, max(1, _CPU_ENTRIES // (shape.width * shape.replicas)))
            if self.batch is not None:
                size = min(size, self.batch)
            count = math.ceil(len(together) / size)
            size = math.ceil(len(together) / count)  # equal parts
            out += [together[at : at + size] for at in range(0, len(together), size)]
        return out
