"""Torque: a force that grows with a unit's distance from a pivot gathers weight in few units.

Training with it sorts the units of every group: those near the pivot keep their weight, those far
from it lose it, and channels of small average weight leave with little loss (Gupta et al., "Torque
Based Structured Pruning for Deep Neural Network", WACV 2024; US 12,591,778 B2). The exponential
profile is that of Modi et al. 2025, "Towards Universal & Efficient Model Compression via
Exponential Torque Pruning", arXiv 2506.22015.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from optiprune.structure import Group, Structure
from optiprune.training.errors import TrainingError
from optiprune.training.loops.callback import Callback, Step
from optiprune.training.units.unit_norms import UnitNorms

__all__ = ["PIVOTS", "PROFILES", "SCHEDULES", "Torque", "average_weight_scores"]

Profile = Literal["linear", "exponential"]
Pivot = Literal["first", "middle", "last", "largest"]
Schedule = Literal["constant", "rising", "falling", "rising-falling"]

# of the relative distance in [0, 1)
PROFILES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda d: d,
    # lambda ** distance with lambda = exp(5 / units)
    "exponential": lambda d: torch.exp(5.0 * d),
}
PIVOTS = ("first", "middle", "last", "largest")
# of the share of the training that is over
SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "constant": lambda t: 1.0,
    "rising": lambda t: min(1.0, 2.0 * t),
    "falling": lambda t: 0.5 * (1.0 + math.cos(math.pi * t)),
    "rising-falling": lambda t: math.sin(math.pi * t) ** 2,
}


class Torque(Callback):
    """R = strength * sum over groups and units n of phi(|n - p| / N) * s_n.

    N is the group's number of units, p its pivot, and s_n the mean, over the parameters that make
    the group's units, of the Euclidean norm of unit n's part (`UnitNorms.mean_norms`). phi is d or
    exp(5 d). The papers print no common normalisation: this one has no further factor, so that
    ``strength`` means the same for a unit of any group.

    In `train` it is a callback; in a loop of one's own ``torque.penalty(t)`` is added to the loss,
    with t in [0, 1] the share of the training that is over.

    Parameters
    ----------
    model, structure : the model, and its groups (`optiprune.structure.find_structure`)
    strength : >= 0
    profile : of the force, over the distance
    pivot : the unit without torque: "first", "middle", "last", the one with the "largest" norm at
        the start, or numbers by group's name (others: the first)
    schedule : how the strength changes over the training, or a function of the share that is over:
        "rising" reaches it half way, "falling" ends at zero by a cosine, "rising-falling" is both
    include, exclude : patterns of names of groups

    Raises
    ------
    TrainingError
        A bad option, or no group left.
    """

    def __init__(
        self,
        model: nn.Module,
        structure: Structure,
        *,
        strength: float,
        profile: Profile = "linear",
        pivot: Pivot | Mapping[str, int] = "first",
        schedule: Schedule | Callable[[float], float] = "constant",
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
    ) -> None:
        if not (math.isfinite(strength) and strength >= 0):
            raise TrainingError(f"strength = {strength!r} must be a number >= 0")
        if profile not in PROFILES:
            raise TrainingError(f"profile {profile!r}: there are {', '.join(PROFILES)}")
        if isinstance(schedule, str) and schedule not in SCHEDULES:
            raise TrainingError(f"schedule {schedule!r}: there are {', '.join(SCHEDULES)}")
        self.strength, self.profile = strength, profile
        self._named = schedule if isinstance(schedule, str) else "a function"
        self._schedule = SCHEDULES[schedule] if isinstance(schedule, str) else schedule
        groups = _named(structure, include, exclude)
        if isinstance(pivot, Mapping):
            unknown = [k for k in pivot if k not in {g.name for g in groups}]
            if unknown:
                raise TrainingError(f"pivot: no group of the torque is called {unknown[0]!r}")
        self.norms = {g.name: UnitNorms(model, g) for g in groups}
        self.pivots = {g.name: _pivot_of(g, pivot, self.norms[g.name]) for g in groups}
        self._forces: dict[str, Tensor] = {}

    def settings(self) -> dict[str, Any]:
        return {"strength": self.strength, "profile": self.profile, "schedule": self._named}

    def penalty(self, over: float = 0.0) -> Tensor:
        """R, a scalar with its graph, when the share ``over`` of the training is over."""
        terms = []
        for name, norms in self.norms.items():
            s = norms.mean_norms()
            terms.append((self._force(name, s) * s).sum())
        return self.strength * self._schedule(over) * torch.stack(terms).sum()

    def loss(self, step: Step) -> Tensor:
        return self.penalty(step.index / max(step.total - 1, 1))

    def distances(self, group: str) -> npt.NDArray[np.float64]:
        """(units,): |n - p| / N."""
        size = self.norms[group].size
        out: npt.NDArray[np.float64] = np.abs(np.arange(size) - self.pivots[group]) / size
        return out

    def _force(self, name: str, like: Tensor) -> Tensor:
        force = self._forces.get(name)
        if force is None or force.device != like.device or force.dtype != like.dtype:
            distance = torch.as_tensor(self.distances(name)).to(like)
            force = self._forces[name] = PROFILES[self.profile](distance)
        return force

    @torch.no_grad()
    def concentration(self) -> dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
        """By group: distances of its units, and their mean norms now."""
        return {
            name: (self.distances(name), norms.mean_norms().double().cpu().numpy())
            for name, norms in self.norms.items()
        }

    def state_dict(self) -> dict[str, Any]:
        return {"pivots": dict(self.pivots)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if set(state["pivots"]) != set(self.pivots):
            raise TrainingError("the checkpoint's torque is on other groups than this one")
        self.pivots = dict(state["pivots"])
        self._forces = {}


def _named(structure: Structure, include: Sequence[str], exclude: Sequence[str]) -> list[Group]:
    names = [g.name for g in structure.groups]
    for pattern in (*include, *exclude):
        if pattern != "*" and not any(fnmatchcase(n, pattern) for n in names):
            raise TrainingError(f"{pattern!r} matches no group; there are {names[:8]}")
    out = [
        g
        for g in structure.groups
        if any(fnmatchcase(g.name, p) for p in include)
        and not any(fnmatchcase(g.name, p) for p in exclude)
    ]
    if not out:
        raise TrainingError(f"no group of units is left for the torque; there are {names[:8]}")
    return out


def _pivot_of(group: Group, pivot: str | Mapping[str, int], norms: UnitNorms) -> int:
    if isinstance(pivot, Mapping):
        at = int(pivot.get(group.name, 0))
        if not 0 <= at < group.size:
            raise TrainingError(
                f"pivot {at} of group {group.name!r}: its units are 0 to {group.size - 1}"
            )
        return at
    if pivot not in PIVOTS:
        raise TrainingError(f"pivot {pivot!r}: there are {', '.join(PIVOTS)}, or numbers by group")
    if pivot == "largest":
        return int(norms.mean_norms().argmax())
    return {"first": 0, "middle": group.size // 2, "last": group.size - 1}[pivot]


def average_weight_scores(
    model: nn.Module, structure: Structure, groups: Iterable[str] | None = None
) -> dict[str, npt.NDArray[np.float64]]:
    """What units are pruned by after training with torque: the average weight of a channel
    (US 12,591,778 B2, abstract), in shares of the largest of its group so that groups compare.

    Parameters
    ----------
    groups : names; all that parameters make by default

    Returns
    -------
    Group's name -> (units,) in [0, 1]; zeros for a group without any weight.
    """
    wanted = None if groups is None else set(groups)
    out = {}
    for g in structure.groups:
        if wanted is None or g.name in wanted:
            average = UnitNorms(model, g).average_weights().cpu().numpy()
            largest = float(average.max())
            out[g.name] = average / largest if largest > 0 else average
    return out
