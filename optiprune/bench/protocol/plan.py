"""What is to be measured, in which order, and what has been done already."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from optiprune.bench.errors import BenchError
from optiprune.bench.instances import Instance

from .spec import SolverSpec

__all__ = ["Key", "Protocol", "Task", "plan"]

Key = tuple[str, str, int, float, str]


@dataclass(frozen=True, slots=True)
class Protocol:
    """The rules of a comparison.

    Attributes
    ----------
    budgets : CPU seconds of a solve, one run each
    seeds : runs of each pair and budget, with the seeds 0, 1, ...
    fill : a solver that ends before its budget begins again, with another seed, until it is used up
    to_target : end a solve at the best known energy, where one is known before the run
    """

    budgets: tuple[float, ...] = (1.0,)
    seeds: int = 5
    fill: bool = True
    to_target: bool = False

    def __post_init__(self) -> None:
        bad = [b for b in self.budgets if not (b > 0 and math.isfinite(b))]
        if bad or not self.budgets:
            raise BenchError(f"a budget is a positive number of seconds, got {self.budgets}")
        if self.seeds < 1:
            raise BenchError(f"seeds must be >= 1, got {self.seeds}")

    @property
    def mode(self) -> str:
        """What, besides budget and seed, tells two measurements apart."""
        return ("fill" if self.fill else "once") + ("+target" if self.to_target else "")


@dataclass(frozen=True, slots=True)
class Task:
    """One solve to be measured."""

    instance: Instance
    solver: SolverSpec
    seed: int
    budget: float
    mode: str

    @property
    def key(self) -> Key:
        """The same key, the same measurement: it is not repeated when a run goes on."""
        return (self.instance.sha256, self.solver.key, self.seed, self.budget, self.mode)


def plan(
    instances: Sequence[Instance], solvers: Sequence[SolverSpec], protocol: Protocol
) -> Iterator[Task]:
    """All tasks, solvers innermost: neighbours in time are compared, and a run that is cut short
    has whole rounds of all instances."""
    for budget in sorted(set(protocol.budgets)):
        for seed in range(protocol.seeds):
            for instance in instances:
                for solver in solvers:
                    yield Task(instance, solver, seed, budget, protocol.mode)
