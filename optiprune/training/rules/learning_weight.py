"""Channels leave by thresholds of their own, which a learning weight raises or takes back.

US 12,327,191 B2 (US20220114453A1; Samsung), claims 1 to 3: from the accuracy of the full network
and that of the pruned one a learning weight is updated, from it a pruning parameter of every
channel, and the network is pruned again; a channel leaves when the share of zeros among its
elements reaches a threshold; when the learning weight falls below a lower limit the session ends
and the next begins with the learning weight at its reference value. The claims give no formulas
and the description was not at hand. The ones used here, with A0 the first accuracy and A that of
the pruned network:

    slack          s = 1 - (A0 - A) / tolerance
    s >= 0         the pruning stays, and w <- w * max(s, 1/2)
    s < 0          the pruning is taken back, and w <- w / 2
    parameter      theta_c <- theta_c + w * (1 - m_c / 2)   for every channel c

m_c is the channel's average weight in shares of its group's largest: small channels come first.
An element of a channel counts as zero when it is below
theta_c in root mean squares of its tensor, and the channel leaves when ``zero_rate`` of its
elements do. When w is below the limit single channels are tried until one does not fit, so that a
session ends at the largest pruning, in this order of channels, within the tolerance.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from optiprune.shrinking import StructureSweep
from optiprune.structure import Plan, Shrunk, Structure
from optiprune.training.errors import TrainingError, check_ranges
from optiprune.training.samples import example_of, samples_of, without_targets
from optiprune.training.units.decide import Decide, check_decider
from optiprune.training.units.known_structure import known_structure

from .candidates import ByEngine, ByThreshold, Candidates
from .pruning_set import pruning_set

__all__ = [
    "LearningWeightOptions",
    "LearningWeightResult",
    "LearningWeightStep",
    "prune_by_learning_weight",
]

Evaluate = Callable[[nn.Module], float]


@dataclass(frozen=True, slots=True)
class LearningWeightOptions:
    """Options of `prune_by_learning_weight`.

    Attributes
    ----------
    tolerance : by which accuracy may fall in all, > 0
    initial : reference value of the learning weight: in root mean squares of a tensor for the
        rule, a share of the parameters for the engine
    lower_limit : of the learning weight
    zero_rate : share of a channel's elements that are zero when it leaves
    sessions : at most
    target : the search ends when no more than this share of the parameters is left
    minimum : share of its units that every group keeps at least
    per_class, valid_rate : of the samples; see `pruning_set`
    seed : of the samples, and of the engine

    Raises
    ------
    TrainingError
        A number out of its range.
    """

    tolerance: float = 0.01
    initial: float = 0.3
    lower_limit: float = 0.01
    zero_rate: float = 0.5
    sessions: int = 5
    target: float = 0.0
    minimum: float = 0.1
    per_class: int = 100
    valid_rate: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        right = {
            "tolerance": self.tolerance > 0,
            "initial": 0 < self.initial < math.inf,
            "lower_limit": 0 < self.lower_limit <= self.initial,
            "zero_rate": 0 < self.zero_rate <= 1,
            "sessions": self.sessions >= 1,
            "target": 0 <= self.target <= 1,
            "minimum": 0 <= self.minimum <= 1,
        }
        check_ranges(self, right)


@dataclass(frozen=True, slots=True)
class LearningWeightStep:
    """One pruning and its evaluation.

    Attributes
    ----------
    session : from 0
    weight : the learning weight that led to it
    left : share of the parameters of the model that was given
    accuracy : of the pruned network
    kept : whether it stayed
    """

    session: int
    weight: float
    left: float
    accuracy: float
    kept: bool


@dataclass(frozen=True, slots=True, eq=False)
class LearningWeightResult:
    """What `prune_by_learning_weight` returns.

    Attributes
    ----------
    model : smaller, and within the tolerance
    plans : one for each session that removed units, each for the model of the one before
    shrunk : of these sessions; the last one's model is ``model``
    accuracy_before, accuracy_after : on the pruning set, or by ``evaluate``
    left : share of the parameters
    steps : all that were evaluated
    """

    model: nn.Module
    plans: tuple[Plan, ...]
    shrunk: tuple[Shrunk, ...]
    accuracy_before: float
    accuracy_after: float
    left: float
    steps: tuple[LearningWeightStep, ...]


def prune_by_learning_weight(
    model: nn.Module,
    data: Iterable[Any],
    *,
    options: LearningWeightOptions | None = None,
    evaluate: Evaluate | None = None,
    retrain: Callable[[nn.Module], object] | None = None,
    decide: Decide = "rule",
    engine: Mapping[str, Any] | None = None,
    structure: Structure | None = None,
) -> LearningWeightResult:
    """Remove channels, neurons and heads while accuracy stays within a tolerance.

    Parameters
    ----------
    model : is left as it was
    data : as for `optiprune.optimize_masks`: class numbers as targets, or none
    evaluate : of a model, higher is better, in place of the accuracy on the pruning set
    retrain : trains the smaller model of a session in place, before the next one; a session whose
        training ends below the tolerance is not taken
    decide : "rule", or "engine": the learning weight says how many of the parameters leave next,
        and `optiprune.shrinking.StructureSweep` which units and widths
    engine : further options of `StructureSweep`
    structure : groups of this model, where they are known

    Raises
    ------
    TrainingError
        A bad option.
    TraceError, GateError, CalibrationError, ShrinkingError
        The model cannot be traced; the smaller model is not the masked one; unfit data; no group
        that the engine could choose from.
    """
    check_decider(decide, engine, StructureSweep, ("structure", "minimum"))
    o = options or LearningWeightOptions()
    seen = samples_of(model, data)
    accuracy = evaluate
    if accuracy is None:
        accuracy = pruning_set(
            model, seen, per_class=o.per_class, valid_rate=o.valid_rate, seed=o.seed
        ).accuracy
    if o.valid_rate is not None:  # labels that no loss could be taken of
        seen = without_targets(seen)
    first = float(accuracy(model))
    if not math.isfinite(first):
        raise TrainingError(f"the accuracy of the model as it is is {first}")
    log = _Log(accuracy, first, o.tolerance, sum(p.numel() for p in model.parameters()))
    current, after = copy.deepcopy(model), first
    plans: list[Plan] = []
    shrunk: list[Shrunk] = []
    example = example_of(seen)
    for session in range(o.sessions if log.left(current) > o.target else 0):
        if structure is None:
            structure = known_structure(current, example)
        candidates: Candidates
        enough = o.target * log.size
        if decide == "rule":
            candidates = ByThreshold(
                current,
                structure,
                seen,
                zero_rate=o.zero_rate,
                minimum=o.minimum,
                enough=enough,
            )
        else:
            candidates = ByEngine(
                current,
                structure,
                seen,
                engine or {},
                minimum=o.minimum,
                seed=o.seed,
                enough=enough,
            )
        found = _session(candidates, log, session, o)
        if found is None:
            break
        plan, smaller, value = found
        if retrain is not None:
            retrain(smaller.model)
            value = float(accuracy(smaller.model))
            if not value >= first - o.tolerance:
                break
        plans.append(plan)
        shrunk.append(smaller)
        current, structure, after = smaller.model, None, value
        if log.left(current) <= o.target:
            break
    return LearningWeightResult(
        current, tuple(plans), tuple(shrunk), first, after, log.left(current), tuple(log.steps)
    )


class _Log:
    """Evaluates, and remembers."""

    def __init__(self, accuracy: Evaluate, first: float, tolerance: float, size: int) -> None:
        self._accuracy, self._first, self._tolerance, self.size = accuracy, first, tolerance, size
        self.steps: list[LearningWeightStep] = []

    def left(self, model: nn.Module) -> float:
        return sum(p.numel() for p in model.parameters()) / self.size

    def slack(self, session: int, weight: float, smaller: Shrunk) -> tuple[float, float]:
        """(s, accuracy) of a pruning."""
        value = float(self._accuracy(smaller.model))
        s = 1.0 - (self._first - value) / self._tolerance
        if math.isnan(s):
            s = -math.inf
        left = self.left(smaller.model)
        self.steps.append(LearningWeightStep(session, weight, left, value, s >= 0))
        return s, value


def _session(
    candidates: Candidates, log: _Log, session: int, o: LearningWeightOptions
) -> tuple[Plan, Shrunk, float] | None:
    """The last pruning that stayed, and its accuracy; None: none did."""
    weight = o.initial
    best: tuple[Plan, Shrunk, float] | None = None

    def enough() -> bool:
        return best is not None and log.left(best[1].model) <= o.target

    while weight >= o.lower_limit and not enough():
        found = candidates.raised(weight)
        if found is None:
            weight /= 2
            continue
        slack, value = log.slack(session, weight, found[1])
        if slack >= 0:
            candidates.keep()
            best = (*found, value)
            weight *= min(max(slack, 0.5), 1.0)
        else:
            weight /= 2
    while not enough():
        found = candidates.one_more()
        if found is None:
            break
        slack, value = log.slack(session, weight, found[1])
        if slack < 0:
            break
        candidates.keep()
        best = (*found, value)
    return best
