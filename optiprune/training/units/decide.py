"""Who chooses the units that leave: a rule's scores, or the engine; and the smaller model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import nn

from optiprune.shrinking import optimize_structure
from optiprune.structure import Plan, Shrunk, Structure, shrink
from optiprune.training.errors import TrainingError
from optiprune.training.samples import example_of, samples_of

from .ranking import lowest_units

__all__ = ["BUDGETS", "Decide", "Smaller", "check_budgets", "check_decider", "decide_units"]

Decide = Literal["rule", "engine"]
DECIDERS = ("rule", "engine")
BUDGETS = ("parameters", "macs", "memory", "latency")


@dataclass(frozen=True, slots=True, eq=False)
class Smaller:
    """A smaller model and how it came to be.

    Attributes
    ----------
    plan, shrunk : units that left, and the model without them with its costs before and after
    decide : who chose them
    """

    plan: Plan
    shrunk: Shrunk
    decide: Decide

    @property
    def model(self) -> nn.Module:
        return self.shrunk.model


def decide_units(
    model: nn.Module,
    structure: Structure,
    data: Iterable[Any],
    budgets: Mapping[str, float],
    scores: Mapping[str, npt.NDArray[np.float64]],
    *,
    decide: Decide,
    minimum: float = 0.1,
    engine: Mapping[str, Any] | None = None,
) -> Smaller:
    """Make a model smaller within budgets.

    Parameters
    ----------
    model : is left as it was
    data : calibration data, as for `optiprune.optimize_masks`; of them the rule sees the shapes
    budgets : "parameters", "macs", "memory" or, where the engine decides, "latency" -> share up to
        1, or cost
    scores : what the rule removes the lowest of, over all groups; the engine does not look at them
    decide : "rule", or "engine": `optiprune.shrinking.optimize_structure` at the same budgets
    minimum : share of its units that every group keeps at least
    engine : further options of `optimize_structure`

    Raises
    ------
    TrainingError
        A bad option, or budgets that cannot be met.
    ShrinkingError, GateError, CalibrationError
        As for `optimize_structure`.
    """
    check_decider(decide, engine, optimize_structure, ("widths", *BUDGETS))
    check_budgets(decide, budgets)
    if decide == "engine":
        options: dict[str, Any] = {"minimum": minimum, "structure": structure}
        result = optimize_structure(model, data, **{**options, **(engine or {}), **budgets})
        return Smaller(result.plan, result.shrunk, decide)
    plan = lowest_units(structure, scores, budgets, minimum=minimum)
    args, kwargs = example_of(samples_of(model, data))
    return Smaller(plan, shrink(model, plan, args, kwargs, structure=structure), decide)


def check_budgets(decide: str, budgets: Mapping[str, float]) -> None:
    """Raise `TrainingError` for none, for unknown ones, and for one that a rule cannot measure."""
    unknown = [k for k in budgets if k not in BUDGETS]
    if unknown or not budgets:
        raise TrainingError(f"budgets {dict(budgets)}: give one at least of {', '.join(BUDGETS)}")
    if decide == "rule" and "latency" in budgets:
        raise TrainingError("a budget of latency needs decide = 'engine': rules do not measure it")


def check_decider(
    decide: str,
    engine: Mapping[str, Any] | None,
    function: Callable[..., object],
    taken: Sequence[str] = (),
) -> None:
    """Raise `TrainingError` for one that there is not, and for options that no one would read.

    Parameters
    ----------
    function : of the engine, which gets the options
    taken : of its options those that the rule sets by itself
    """
    if decide not in DECIDERS:
        raise TrainingError(f"decide = {decide!r}: there are {' and '.join(DECIDERS)}")
    if decide == "rule" and engine:
        raise TrainingError(f"options of the engine ({', '.join(engine)}) with decide = 'rule'")
    known = [k for k in inspect.signature(function).parameters if k not in ("model", "data")]
    unknown = [k for k in engine or {} if k not in known]
    if unknown:
        raise TrainingError(f"engine: no option {unknown[0]!r}; there are {', '.join(known)}")
    double = [k for k in engine or {} if k in taken]
    if double:
        raise TrainingError(f"engine: {double[0]!r} is set by the rule; it cannot be given here")
