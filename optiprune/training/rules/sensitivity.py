"""The least sensitive layer first, by thresholds from the distributions of weights.

US 12,045,723 B2 and US 12,619,877 B2 (US20210081798A1, US20240346317A1; Samsung): on a fixed
number of samples of every class the change of accuracy is predicted that pruning each layer would
bring; the layer of the smallest change is pruned, its threshold is raised without selecting anew
until accuracy has fallen by a set amount, and then the layer is left out, until all layers have
had their turn. What the text that was at hand leaves open, and what is done here: thresholds are
those of `normal_threshold`; rates rise in equal steps; a step that goes too far is taken back; the
set amount is an equal part, among the layers to come, of what is left above the floor.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from optiprune.api import optimize_masks
from optiprune.config import Config
from optiprune.curvature import CalibrationSet
from optiprune.masks import MaskSet
from optiprune.shrinking import optimize_structure
from optiprune.shrinking.readers import find_readers
from optiprune.structure import Plan, Shrunk, Structure, shrink
from optiprune.training.errors import TrainingError, check_ranges
from optiprune.training.samples import example_of, samples_of, without_targets
from optiprune.training.units.decide import BUDGETS, Decide, check_decider
from optiprune.training.units.known_structure import known_structure

from .pruning_set import pruning_set
from .rated import Rated, RatedUnits, RatedWeights

__all__ = [
    "SensitivityOptions",
    "SensitivityResult",
    "SensitivityStep",
    "prune_sensitive_units",
    "prune_sensitive_weights",
    "search_rates",
]

# of a step of a rate that would go beyond the target
_HALVINGS = 10
Evaluate = Callable[[nn.Module], float]


@dataclass(frozen=True, slots=True)
class SensitivityStep:
    """One rate that was tried.

    Attributes
    ----------
    layer, rate : which, and how much of it
    accuracy : of the whole network with it
    kept : whether it stayed
    """

    layer: str
    rate: float
    accuracy: float
    kept: bool


@dataclass(frozen=True, slots=True)
class SensitivityOptions:
    """How rates are searched.

    Attributes
    ----------
    floor : accuracy that is never gone below; None: that of the model less ``tolerance``
    tolerance : see floor
    target : the search ends when no more than this share of the parameters is left
    step : by which rates rise
    layer_drop : by how much accuracy may fall while one layer is pruned; None: an equal part,
        among the layers to come, of what is left above the floor
    max_rate : no rate is above it
    per_class, valid_rate : of the samples; see `pruning_set`
    seed : of the samples, and of the engine

    Raises
    ------
    TrainingError
        A number out of its range.
    """

    floor: float | None = None
    tolerance: float = 0.01
    target: float = 0.0
    step: float = 0.1
    layer_drop: float | None = None
    max_rate: float = 0.95
    per_class: int = 100
    valid_rate: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        right = {
            "tolerance": self.tolerance >= 0,
            "target": 0 <= self.target <= 1,
            "step": 0 < self.step < 1,
            "layer_drop": self.layer_drop is None or self.layer_drop >= 0,
            "max_rate": 0 < self.max_rate < 1,
        }
        check_ranges(self, right)


@dataclass(frozen=True, slots=True, eq=False)
class SensitivityResult:
    """What the two functions of this module return.

    Attributes
    ----------
    rates : of every layer, or of groups that lose together by the first of them
    accuracy_before, accuracy_after, floor : as measured on the pruning set, or by ``evaluate``
    left : share that is left of the layers' weights, or of all parameters
    steps : in the order in which they were tried
    masks : of weights, not applied; None for units
    plan, shrunk : of units; None for weights
    decided_by : "rule" or "engine"; "rule" too where the engine's answer was below the floor, or
        nothing was to be chosen
    """

    rates: Mapping[str, float]
    accuracy_before: float
    accuracy_after: float
    floor: float
    left: float
    steps: tuple[SensitivityStep, ...]
    masks: MaskSet | None
    plan: Plan | None
    shrunk: Shrunk | None
    decided_by: Decide


def search_rates(
    rated: Rated,
    accuracy: Callable[[nn.Module], float],
    *,
    floor: float,
    step: float = 0.1,
    layer_drop: float | None = None,
    max_rate: float = 0.95,
    target: float = 0.0,
) -> tuple[dict[str, float], float, list[SensitivityStep]]:
    """Rates for all layers; accuracy at them is at least ``floor``, if it is at rates of zero.

    Parameters
    ----------
    accuracy : of a pruned model
    step : by which rates rise
    layer_drop : by how much accuracy may fall while one layer is pruned; None: an equal part,
        among the layers to come, of what is left above the floor
    max_rate : no rate is above it
    target : the search ends when no more than this share of the parameters is left

    Returns
    -------
    rates, accuracy at them, and all that was tried
    """
    rates = dict.fromkeys(rated.names, 0.0)
    now = accuracy(rated.pruned(rates))
    steps: list[SensitivityStep] = []
    pool = list(rated.names)
    while pool and rated.left(rates) > target:
        first = {n: _no_further(rated, rates, n, min(step, max_rate), target) for n in pool}
        after = {n: accuracy(rated.pruned({**rates, n: first[n]})) for n in pool}
        layer = max(pool, key=after.__getitem__)  # the smallest fall
        pool.remove(layer)
        allowed = (now - floor) / (len(pool) + 1) if layer_drop is None else layer_drop
        start, rate, value = now, first[layer], after[layer]
        while True:
            kept = value >= floor and value >= start - allowed
            steps.append(SensitivityStep(layer, rate, value, kept))
            if not kept:
                break
            rates[layer], now = rate, value
            if rate >= max_rate or rated.left(rates) <= target:
                break
            rate = _no_further(rated, rates, layer, min(rate + step, max_rate), target)
            value = accuracy(rated.pruned({**rates, layer: rate}))
    return rates, now, steps


def _no_further(
    rated: Rated, rates: Mapping[str, float], layer: str, rate: float, target: float
) -> float:
    """The rate, or the least one of this layer that meets the target."""
    low = rates[layer]
    if rated.left({**rates, layer: rate}) >= target:
        return rate
    for _ in range(_HALVINGS):
        middle = (low + rate) / 2
        if rated.left({**rates, layer: middle}) <= target:
            rate = middle
        else:
            low = middle
    return rate


def prune_sensitive_weights(
    model: nn.Module,
    data: Iterable[Any],
    *,
    options: SensitivityOptions | None = None,
    evaluate: Evaluate | None = None,
    decide: Decide = "rule",
    engine: Mapping[str, Any] | None = None,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
) -> SensitivityResult:
    """Prune weights of the least sensitive layers as far as an accuracy allows.

    Parameters
    ----------
    model : is left as it was; ``result.masks.apply(model)`` masks it
    data : as for `optiprune.optimize_masks`: class numbers as targets, or none
    evaluate : of a model, higher is better, in place of the accuracy on a pruning set; targets may
        then be of any kind
    decide : "rule", or "engine": `optiprune.optimize_masks` chooses which weights stay, as many in
        every layer as the rule found, with their values as they are
    engine : further options of `optimize_masks`
    include, exclude : patterns of names of layers

    Raises
    ------
    TrainingError
        A bad option, or a model that is below the floor as it is.
    LayerError, CalibrationError
        Nothing to prune; unfit data.
    """
    check_decider(decide, engine, optimize_masks, ("sparsity", "refit", "include", "seed"))
    o, accuracy, before, lowest, seen = _begin(model, data, options, evaluate)
    rated = RatedWeights(model, include, exclude)
    rates, after, steps = _search(rated, accuracy, lowest, o)
    masks = MaskSet(rated.masks(rates))
    decided: Decide = "rule"
    if decide == "engine" and any(rates.values()):
        sparsity = {name: 1.0 - float(masks[p].double().mean()) for name, p in rated.layers.items()}
        more = dict(engine or {})
        more["config"] = _with_sparsities(more.get("config"), sparsity)
        work = copy.deepcopy(model)
        found = optimize_masks(
            work,
            seen,  # type: ignore[arg-type]
            sparsity=1.0 - rated.left(rates),
            refit=False,
            include=list(rated.layers),
            seed=o.seed,
            **more,
        )
        value = accuracy(work.eval())
        if value >= lowest:
            masks, after, decided = found.masks, value, "engine"
    left = masks.density()
    return SensitivityResult(
        rates, before, after, lowest, left, tuple(steps), masks, None, None, decided
    )


def prune_sensitive_units(
    model: nn.Module,
    data: Iterable[Any],
    *,
    options: SensitivityOptions | None = None,
    evaluate: Evaluate | None = None,
    decide: Decide = "rule",
    engine: Mapping[str, Any] | None = None,
    minimum: float = 0.1,
    structure: Structure | None = None,
) -> SensitivityResult:
    """Remove units of the least sensitive groups as far as an accuracy allows.

    The rule of `prune_sensitive_weights` over the average weights of units.

    Parameters
    ----------
    decide : "rule", or "engine": `optiprune.shrinking.optimize_structure` chooses which units
        stay, as many in every group as the rule found, with weights as they are; groups that no
        Linear or Conv2d layer reads stay whole then
    engine : further options of `optimize_structure`, such as ``refit``
    minimum : share of its units that every group keeps at least
    structure : groups of this model, where they are known

    The others, and errors, are those of `prune_sensitive_weights`, and `TraceError`, `GateError`:
    the model cannot be traced; the smaller model is not the masked one.
    """
    check_decider(decide, engine, optimize_structure, ("widths", *BUDGETS))
    o, accuracy, before, lowest, seen = _begin(model, data, options, evaluate)
    args, kwargs = example_of(seen)
    if structure is None:
        structure = known_structure(model, (args, kwargs))
    # the engine judges units by the layers that read them
    whole = find_readers(model, structure).unread if decide == "engine" else ()
    rated = RatedUnits(model, structure, minimum, whole)
    rates, after, steps = _search(rated, accuracy, lowest, o)
    plan, shrunk = rated.plan(rates), None
    decided: Decide = "rule"
    if decide == "engine" and plan.removed:
        widths = {g.name: g.size - len(plan.removed.get(g.name, ())) for g in structure.groups}
        more = {"structure": structure, "seed": o.seed, "refit": False, **(engine or {})}
        more["widths"] = widths
        result = optimize_structure(model, seen, **more)  # type: ignore[arg-type]
        value = accuracy(result.model)
        if value >= lowest:
            plan, shrunk, after, decided = result.plan, result.shrunk, value, "engine"
    if shrunk is None:
        shrunk = shrink(model, plan, args, kwargs, structure=structure)
    left = shrunk.parameters_after / shrunk.parameters_before
    return SensitivityResult(
        rates, before, after, lowest, left, tuple(steps), None, plan, shrunk, decided
    )


def _with_sparsities(
    config: Config | Mapping[str, Any] | None, sparsity: Mapping[str, float]
) -> Config | dict[str, Any]:
    """A config of the user's with the layers' sparsities in it."""
    if isinstance(config, Config):
        return config.replace(layers={"sparsity": sparsity})
    table = dict(config or {})
    return {**table, "layers": {**table.get("layers", {}), "sparsity": dict(sparsity)}}


def _begin(
    model: nn.Module,
    data: Iterable[Any],
    options: SensitivityOptions | None,
    evaluate: Evaluate | None,
) -> tuple[SensitivityOptions, Evaluate, float, float, CalibrationSet]:
    """Options, how accuracy is measured, that of the model, the floor, and all samples."""
    o = options or SensitivityOptions()
    seen = samples_of(model, data)
    accuracy = evaluate
    if accuracy is None:
        accuracy = pruning_set(
            model, seen, per_class=o.per_class, valid_rate=o.valid_rate, seed=o.seed
        ).accuracy
    before = float(accuracy(model))
    lowest = before - o.tolerance if o.floor is None else o.floor
    if not (math.isfinite(before) and before >= lowest):
        raise TrainingError(
            f"the model as it is has an accuracy of {before:.4f}, not the floor of {lowest:.4f}"
        )
    # labels of other names than the model's are nothing that a loss could be taken of
    return o, accuracy, before, lowest, seen if o.valid_rate is None else without_targets(seen)


def _search(
    rated: Rated, accuracy: Evaluate, floor: float, o: SensitivityOptions
) -> tuple[dict[str, float], float, list[SensitivityStep]]:
    return search_rates(
        rated,
        accuracy,
        floor=floor,
        step=o.step,
        layer_drop=o.layer_drop,
        max_rate=o.max_rate,
        target=o.target,
    )
