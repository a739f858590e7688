"""What leaves a trained model, by the rule of a config or by the engine in its place."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from optiprune.api import optimize_masks
from optiprune.curvature import CalibrationSet
from optiprune.masks import MaskSet
from optiprune.shrinking import StructureSweep, optimize_structure, refit_and_shrink
from optiprune.structure import Plan, Structure

from .config import TrainingConfig
from .rules.behaviour import Behaviour
from .rules.feature_pruning import feature_masks, feature_units
from .rules.learning_weight import LearningWeightOptions, prune_by_learning_weight
from .rules.sensitivity import (
    SensitivityOptions,
    SensitivityResult,
    prune_sensitive_units,
    prune_sensitive_weights,
)
from .samples import example_of, without_targets
from .terms.features import FeaturePairs
from .terms.torque import average_weight_scores
from .units.decide import Smaller, check_decider, decide_units

__all__ = ["Chosen", "check_choice", "choose"]


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """What `choose` returns.

    Attributes
    ----------
    model : smaller, or a masked copy
    plans : of units, one after the other; none for weights
    masks : of weights; None for units
    left : share of the parameters; of the masked layers' weights for masks
    macs : multiply-adds of one sample before and after; None for masks
    decided_by : "rule", "engine"
    """

    model: nn.Module
    plans: tuple[Plan, ...]
    masks: MaskSet | None
    left: float
    macs: tuple[float, float] | None
    decided_by: str


def check_choice(config: TrainingConfig) -> None:
    """Raise `TrainingError` for options that the choice would not take."""
    c = config.choice
    if c.rule == "learning-weight":
        _learning_weight_options(config)
    function: Callable[..., object] = optimize_structure
    if c.of == "weights":
        function = optimize_masks
    elif c.rule in ("features", "learning-weight"):
        function = StructureSweep
    check_decider(c.decide, c.engine or None, function)


def choose(
    model: nn.Module,
    data: CalibrationSet,
    config: TrainingConfig,
    *,
    teacher: nn.Module,
    structure: Structure | None = None,
    pairs: FeaturePairs | None = None,
    retrain: Callable[[nn.Module], object] | None = None,
) -> Chosen:
    """The model without what the config's rule removes; the model itself is left as it was.

    Parameters
    ----------
    data : calibration samples
    structure : what `known_structure` found of the model; None for ``choice.of = "weights"``
    teacher, pairs : of the rule "features"; without pairs adapters begin as they do in
        `FeaturePairs`
    retrain : trains the model of a session of the learning weight in place, where
        ``learning_weight.retrain_epochs`` are asked for

    Raises
    ------
    TrainingError
        Budgets out of reach, samples without class numbers, features that do not fit.
    LayerError, TraceError, GateError, CalibrationError, ShrinkingError
        As the parts do.
    """
    c, rule = config.choice, config.choice.rule
    if rule == "average-weight":
        assert structure is not None
        smaller = decide_units(
            model,
            structure,
            data,  # type: ignore[arg-type]
            _budgets(config),
            average_weight_scores(model, structure),
            decide=c.decide,
            minimum=c.minimum,
            engine=_engine(config) if c.decide == "engine" else None,
        )
        return _of_smaller(_refitted(model, smaller, data, structure, config))
    if rule == "features":
        return _by_features(model, data, config, structure, teacher, pairs)
    if rule == "learning-weight":
        found = prune_by_learning_weight(
            model,
            data,  # type: ignore[arg-type]
            options=_learning_weight_options(config),
            retrain=retrain if config.learning_weight.retrain_epochs else None,
            decide=c.decide,
            engine=c.engine or None,
            structure=structure,
        )
        macs = None
        if found.shrunk:
            macs = found.shrunk[0].macs_before, found.shrunk[-1].macs_after
        return Chosen(found.model, found.plans, None, found.left, macs, c.decide)
    return _by_sensitivity(model, data, config, structure)


def _learning_weight_options(config: TrainingConfig) -> LearningWeightOptions:
    return LearningWeightOptions(
        **config.learning_weight.model_dump(exclude={"retrain_epochs"}),
        target=config.budget.parameters or 0.0,
        minimum=config.choice.minimum,
        per_class=config.per_class,
        seed=config.seed,
    )


def _by_features(
    model: nn.Module,
    data: CalibrationSet,
    config: TrainingConfig,
    structure: Structure | None,
    teacher: nn.Module,
    pairs: FeaturePairs | None,
) -> Chosen:
    c, d = config.choice, config.distillation
    if pairs is None:
        pairs = FeaturePairs(
            teacher, model, d.features, example_of(data), grid=d.grid, seed=config.seed
        )
    engine = c.engine or None
    if structure is not None:
        return _of_smaller(
            feature_units(
                teacher,
                model,
                pairs,
                data,
                _budgets(config),
                decide=c.decide,
                refit=c.refit,
                minimum=c.minimum,
                engine=engine,
                structure=structure,
                seed=config.seed,
            )
        )
    assert config.budget.sparsity is not None
    masks = feature_masks(
        teacher,
        model,
        pairs,
        data,
        sparsity=config.budget.sparsity,
        decide=c.decide,
        engine=engine,
        seed=config.seed,
    )
    return _masked(model, masks, c.decide)


def _by_sensitivity(
    model: nn.Module, data: CalibrationSet, config: TrainingConfig, structure: Structure | None
) -> Chosen:
    c, b = config.choice, config.budget
    left = b.parameters if b.sparsity is None else 1 - b.sparsity
    options = SensitivityOptions(
        **config.sensitivity.model_dump(),
        target=left or 0.0,
        per_class=config.per_class,
        seed=config.seed,
    )
    samples: Iterable[Any] = data  # type: ignore[assignment]
    evaluate = None
    if c.rule == "behaviour":
        samples = without_targets(data)  # type: ignore[assignment]
        evaluate = Behaviour(model, samples).agreement
    engine = c.engine or None
    found: SensitivityResult
    if structure is None:
        found = prune_sensitive_weights(
            model, samples, options=options, evaluate=evaluate, decide=c.decide, engine=engine
        )
        assert found.masks is not None
        return _masked(model, found.masks, found.decided_by)
    found = prune_sensitive_units(
        model,
        samples,
        options=options,
        evaluate=evaluate,
        decide=c.decide,
        engine=engine,
        minimum=c.minimum,
        structure=structure,
    )
    assert found.shrunk is not None
    assert found.plan is not None
    return _of_smaller(Smaller(found.plan, found.shrunk, found.decided_by))


def _refitted(
    model: nn.Module,
    smaller: Smaller,
    data: CalibrationSet,
    structure: Structure,
    config: TrainingConfig,
) -> Smaller:
    """The engine fits by itself, unless it is told not to."""
    if not config.choice.refit or smaller.decide == "engine":
        return smaller
    fitted = refit_and_shrink(model, smaller.plan, data, structure=structure)  # type: ignore[arg-type]
    return Smaller(smaller.plan, fitted, smaller.decide)


def _engine(config: TrainingConfig) -> Mapping[str, Any]:
    return {"refit": config.choice.refit, "seed": config.seed, **config.choice.engine}


def _budgets(config: TrainingConfig) -> dict[str, float]:
    given = config.budget.model_dump(exclude={"sparsity"})
    return {k: v for k, v in given.items() if v is not None}


def _of_smaller(smaller: Smaller) -> Chosen:
    s = smaller.shrunk
    left = s.parameters_after / s.parameters_before
    macs = s.macs_before, s.macs_after
    return Chosen(s.model, (smaller.plan,), None, left, macs, smaller.decide)


def _masked(model: nn.Module, masks: MaskSet, decided_by: str) -> Chosen:
    work = copy.deepcopy(model)
    masks.apply(work)
    return Chosen(work, (), masks, masks.density(), None, decided_by)
