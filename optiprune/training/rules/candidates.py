"""Prunings in an order, each more than the one before: by thresholds, or by the engine."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import nn

from optiprune.curvature import CalibrationSet
from optiprune.shrinking import OutOfReachError, SearchOptions, StructureSweep
from optiprune.shrinking.budgets import costs_of
from optiprune.structure import Plan, Shrunk, Structure, shrink
from optiprune.training.samples import example_of
from optiprune.training.terms.torque import average_weight_scores
from optiprune.training.units.ranking import Chain, Move, plan_of, removal_chains, removal_order
from optiprune.training.units.unit_norms import UnitNorms

__all__ = ["ByEngine", "ByThreshold", "Candidates"]


class Candidates(Protocol):
    """Prunings in an order, each more than the one before."""

    def raised(self, by: float) -> tuple[Plan, Shrunk] | None:
        """A pruning further on by ``by`` than the last that was kept; None: there is none."""
        ...

    def one_more(self) -> tuple[Plan, Shrunk] | None:
        """The smallest step beyond the last that was kept; None: there is none."""
        ...

    def keep(self) -> None:
        """What was given last stays."""
        ...


class ByThreshold:
    """A unit leaves when ``zero_rate`` of its elements are below its parameter theta.

    Parameters
    ----------
    enough : parameters that may be left: no more units leave than that needs
    """

    def __init__(
        self,
        model: nn.Module,
        structure: Structure,
        data: CalibrationSet,
        *,
        zero_rate: float,
        minimum: float,
        enough: float,
    ) -> None:
        self._model, self._structure, self._minimum = model, structure, minimum
        self._enough = enough
        self._args, self._kwargs = example_of(data)
        self._speed = {k: 1 - m / 2 for k, m in average_weight_scores(model, structure).items()}
        # from which theta on a unit has left
        self._leaves = {
            g.name: UnitNorms(model, g).relative_quantiles(zero_rate).cpu().numpy()
            for g in structure.groups
            if g.name in self._speed
        }
        self._theta = {k: np.zeros_like(v) for k, v in self._leaves.items()}
        self._trial = self._theta
        self._kept = self._tried = 0  # moves

    def raised(self, by: float) -> tuple[Plan, Shrunk] | None:
        theta = self._theta
        while True:
            theta = {k: t + by * self._speed[k] for k, t in theta.items()}
            chains = self._chains(theta)
            past = [_past(c) for c in chains]
            gone = sum(len(p.moves) for p in past)
            if gone > self._kept:
                return self._made(theta, self._no_more(past))
            if gone == sum(math.isfinite(x) for c in chains for x in c.costs):
                return None

    def one_more(self) -> tuple[Plan, Shrunk] | None:
        chains = self._chains(self._theta)
        past = [_past(c) for c in chains]
        following = [
            (c.costs[len(p.moves)], i, c.moves[len(p.moves)])
            for i, (c, p) in enumerate(zip(chains, past, strict=True))
            if len(p.moves) < len(c.moves) and c.costs[len(p.moves)] < math.inf
        ]
        if not following:
            return None
        _, _, move = min(following, key=lambda f: f[:2])
        theta = {k: t.copy() for k, t in self._theta.items()}
        for g, units in move:
            name = self._structure.groups[g].name
            theta[name][list(units)] = self._leaves[name][list(units)]
        return self._made(theta, [*(m for p in past for m in p.moves), move])

    def keep(self) -> None:
        self._theta = self._trial
        self._kept = self._tried

    def _no_more(self, past: Sequence[Chain]) -> list[Move]:
        """What is past its threshold, the furthest first, and no more than the target needs."""
        order = removal_order(past)
        low, high = 1, len(order)
        while low < high:
            middle = (low + high) // 2
            if self._parameters(order[:middle]) <= self._enough:
                high = middle
            else:
                low = middle + 1
        return order[:low]

    def _parameters(self, moves: Sequence[Move]) -> float:
        plan = plan_of(self._structure, moves)
        return costs_of(self._structure, plan.kept(self._structure))["parameters"]

    def _chains(self, theta: Mapping[str, npt.NDArray[np.float64]]) -> list[Chain]:
        margins = {k: self._leaves[k] - t for k, t in theta.items()}
        return removal_chains(self._structure, margins, minimum=self._minimum)

    def _made(
        self, theta: dict[str, npt.NDArray[np.float64]], moves: Sequence[Move]
    ) -> tuple[Plan, Shrunk]:
        self._trial, self._tried = theta, len(moves)
        plan = plan_of(self._structure, moves)
        return plan, shrink(
            self._model,
            plan,
            self._args,
            self._kwargs,
            structure=self._structure,
            latency_repeats=0,
        )


def _past(chain: Chain) -> Chain:
    """The moves of it that are past their threshold."""
    count = bisect_right(chain.costs, 0.0)
    return Chain(chain.groups, chain.moves[:count], chain.costs[:count])


class ByEngine:
    """The engine at a budget of parameters that falls, to ``enough`` of them."""

    def __init__(
        self,
        model: nn.Module,
        structure: Structure,
        data: CalibrationSet,
        engine: Mapping[str, Any],
        *,
        minimum: float,
        seed: int,
        enough: float,
    ) -> None:
        self._most = 1 - enough / costs_of(structure, {})["parameters"]
        options = {"structure": structure, "minimum": minimum, **engine}
        options.setdefault("options", SearchOptions(seed=seed, refit=False))
        self._sweep = StructureSweep(model, data, **options)  # type: ignore[arg-type]
        self._gone = self._trial = 0.0

    def raised(self, by: float) -> tuple[Plan, Shrunk] | None:
        self._trial = min(self._gone + by, max(self._most, self._gone))
        if self._trial >= 1 or self._trial <= self._gone:
            return None
        try:
            result = self._sweep.at({"parameters": 1 - self._trial})
        except OutOfReachError:  # no widths are that small
            return None
        return result.plan, result.shrunk

    def one_more(self) -> tuple[Plan, Shrunk] | None:
        return None

    def keep(self) -> None:
        self._gone = self._trial
