"""Keeps the first k variables of each group: a solver that another package brings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from optiprune.problems import CardinalityQP
from optiprune.solvers import BaseSolver, Capabilities, Outcome, SolverOptionError, Status


@dataclass(frozen=True)
class FirstFit(BaseSolver):
    """``reverse``: keep the last ones instead."""

    name: ClassVar[str] = "first-fit"
    capabilities: ClassVar[Capabilities] = Capabilities(frozenset({CardinalityQP}))

    reverse: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.reverse, bool):
            raise SolverOptionError(f"reverse must be true or false, got {self.reverse!r}")

    def _solve(self, problem: Any, x0: Any, seed: Any, watch: Any) -> Outcome:
        x = np.zeros(problem.n, dtype=np.int8)
        for g, k in enumerate(problem.k):
            members = np.flatnonzero(problem.groups == g)
            x[members[::-1][:k] if self.reverse else members[:k]] = 1
        return Outcome(x, Status.FEASIBLE, watch.stats("completed"))
