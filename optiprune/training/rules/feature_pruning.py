"""What a student can lose by the distance of its features from its teacher's.

US20260099770A1, claim 1: the student is pruned with a second loss, of the features alone; no output
and no label enters it. The claims do not say how. Here the score of a weight is ``|w dL2/dw|``, and
that of a unit ``|sum of w dL2/dw|`` over the parameters that make it, the mean over batches: the
first-order change of the distance when it leaves (Molchanov et al. 2019, arXiv 1906.10771). The
engine takes the same distance to second order: its gradient, and the Gauss-Newton matrix of the
squared error, which says what is lost also where the student still is the teacher and all
gradients are zero.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from optiprune.api import optimize_masks
from optiprune.curvature import CalibrationSet
from optiprune.curvature.inputs import arguments_of
from optiprune.masks import MaskSet
from optiprune.shrinking import SearchOptions, StructureSweep, refit_and_shrink
from optiprune.structure import Member, Structure, find_structure, shrink
from optiprune.structure.modes import evaluating
from optiprune.training.errors import TrainingError
from optiprune.training.samples import example_of, samples_of
from optiprune.training.terms.features import ADAPTERS, FeaturePairs, captured
from optiprune.training.units.decide import Decide, Smaller, check_budgets, check_decider
from optiprune.training.units.known_structure import known_structure
from optiprune.training.units.ranking import lowest_units
from optiprune.training.units.unit_norms import UnitNorms

__all__ = ["feature_masks", "feature_unit_scores", "feature_units", "feature_weight_scores"]

_CHUNK = 256
Data = Iterable[Any] | CalibrationSet


def feature_weight_scores(
    teacher: nn.Module, student: nn.Module, pairs: FeaturePairs, data: Data, chunk: int = _CHUNK
) -> dict[str, Tensor]:
    """Parameter -> ``|w dL2/dw|``, float64, the mean over batches of ``chunk`` samples.

    Zero everywhere if the student's features are the teacher's. Targets are not looked at.
    """
    out: dict[str, Tensor] = {}
    batches = 0
    for products in _products(teacher, student, pairs, samples_of(student, data), chunk):
        batches += 1
        for name, p in products.items():
            out[name] = out.get(name, torch.zeros_like(p)) + p.abs()
    return {name: total / batches for name, total in out.items()}


def feature_unit_scores(
    teacher: nn.Module,
    student: nn.Module,
    pairs: FeaturePairs,
    data: Data,
    structure: Structure,
    chunk: int = _CHUNK,
) -> dict[str, npt.NDArray[np.float64]]:
    """Group's name -> ``|sum of w dL2/dw|`` of each unit, the mean over batches."""
    norms = {g.name: UnitNorms(student, g) for g in structure.groups if _made(student, g.members)}
    out = {name: np.zeros(n.size) for name, n in norms.items()}
    batches = 0
    for products in _products(teacher, student, pairs, samples_of(student, data), chunk):
        batches += 1
        for name, n in norms.items():
            out[name] += n.sums(products).abs().cpu().numpy()
    return {name: total / max(batches, 1) for name, total in out.items()}


def _made(model: nn.Module, members: Iterable[Any]) -> bool:
    named = dict(model.named_parameters())
    return any(not m.reads and m.tensor in named for m in members)


def _products(
    teacher: nn.Module, student: nn.Module, pairs: FeaturePairs, data: CalibrationSet, chunk: int
) -> Iterator[dict[str, Tensor]]:
    """``w dL2/dw`` of every parameter, float64, batch by batch."""
    student = copy.deepcopy(student).requires_grad_(True)  # frozen parameters have scores too
    named = dict(student.named_parameters())
    mine, theirs = list(pairs.pairs), list(pairs.pairs.values())
    for batch in data.batches(chunk):
        args, kwargs = arguments_of(batch.inputs)
        with captured(teacher, theirs) as wanted, evaluating(teacher), torch.no_grad():
            teacher(*args, **kwargs)
        kept = dict(wanted)
        with captured(student, mine) as found, evaluating(student), torch.enable_grad():
            student(*args, **kwargs)
            distance = pairs.distance(found, kept)
        gradients = torch.autograd.grad(distance, list(named.values()), allow_unused=True)
        yield {
            name: (w.detach().double() * g.double() if g is not None else w.detach().double() * 0)
            for (name, w), g in zip(named.items(), gradients, strict=True)
        }


def feature_masks(
    teacher: nn.Module,
    student: nn.Module,
    pairs: FeaturePairs,
    data: Data,
    *,
    sparsity: float,
    decide: Decide = "rule",
    engine: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> MaskSet:
    """Masks of the student's weights by the second loss; the student is left as it was.

    Only Linear and Conv2d layers that the features depend on take part: of the others the second
    loss knows nothing.

    Parameters
    ----------
    data : as for `optiprune.optimize_masks`; targets are not looked at
    sparsity : in [0, 1), share of these weights to prune
    decide : "rule": the lowest scores of all layers leave; "engine": `optiprune.optimize_masks`
        with the second loss as its objective, kept weights as they are
    engine : further options of `optimize_masks`

    Raises
    ------
    TrainingError
        A bad option, or features that depend on no such layer.
    """
    check_decider(decide, engine, optimize_masks, ("sparsity", "loss", "include", "refit"))
    if not 0 <= sparsity < 1:
        raise TrainingError(f"sparsity = {sparsity} must be in [0, 1)")
    samples = samples_of(student, data)
    layers = _upstream(student, pairs, samples)
    if decide == "engine":
        judge = copy.deepcopy(student)
        view, regression = pairs.as_regression(teacher, judge, samples)
        options: dict[str, Any] = {"objective": "global", "refit": False, "seed": seed}
        result = optimize_masks(
            view,
            regression,  # type: ignore[arg-type]
            **{**options, **(engine or {})},
            sparsity=sparsity,
            loss="mse",
            include=list(layers),
        )
        return MaskSet(dict(result.masks))
    scores = feature_weight_scores(teacher, student, pairs, samples)
    flat = torch.cat([scores[p].flatten() for p in layers.values()])
    if not bool(torch.isfinite(flat).all()):
        raise TrainingError(
            "scores are NaN or infinite: a feature of the teacher is zero on all samples"
        )
    keep = torch.ones_like(flat, dtype=torch.bool)
    gone = round(sparsity * flat.numel())
    keep[flat.argsort(stable=True)[:gone]] = False
    parts = keep.split([scores[p].numel() for p in layers.values()])
    return MaskSet(
        {p: m.view(scores[p].shape) for p, m in zip(layers.values(), parts, strict=True)}
    )


def _upstream(student: nn.Module, pairs: FeaturePairs, data: CalibrationSet) -> dict[str, str]:
    """Linear and Conv2d layers, name -> weight's name, that the features are made of."""
    student = copy.deepcopy(student).requires_grad_(True)
    named = dict(student.named_parameters())
    args, kwargs = example_of(data)
    with captured(student, list(pairs.pairs)) as found, evaluating(student), torch.enable_grad():
        student(*args, **kwargs)
        total = torch.stack([f.float().sum() for f in found.values()]).sum()
    reached: set[str] = set()
    if total.requires_grad:
        gradients = torch.autograd.grad(total, list(named.values()), allow_unused=True)
        reached = {n for n, g in zip(named, gradients, strict=True) if g is not None}
    out = {}
    for name, module in student.named_modules():
        weight = f"{name}.weight" if name else "weight"
        if isinstance(module, (nn.Linear, nn.Conv2d)) and weight in reached:
            out[name] = weight
    if not out:
        raise TrainingError("the features depend on no Linear or Conv2d layer of the student")
    return out


def _seen_by_features(
    view: nn.Module,
    structure: Structure,
    reached: Set[str],
    example: tuple[tuple[Any, ...], Mapping[str, Any]],
) -> Structure:
    """The student's groups, read by what leads to features: adapters too, other layers not."""
    adapters: dict[tuple[str, int], tuple[Member, ...]] = {}
    for g in find_structure(view, *example).groups:
        own = tuple(m for m in g.members if m.tensor.startswith(ADAPTERS))
        adapters[g.name, g.size] = own
    groups = []
    for g in structure.groups:
        left = tuple(m for m in g.members if not m.reads or m.tensor in reached)
        groups.append(replace(g, members=left + adapters.get((g.name, g.size), ())))
    return replace(structure, groups=tuple(groups))


def feature_units(
    teacher: nn.Module,
    student: nn.Module,
    pairs: FeaturePairs,
    data: Data,
    budgets: Mapping[str, float],
    *,
    decide: Decide = "rule",
    refit: bool = False,
    minimum: float = 0.1,
    engine: Mapping[str, Any] | None = None,
    structure: Structure | None = None,
    seed: int = 0,
) -> Smaller:
    """The student without the channels, neurons and heads that its features miss least.

    Groups that the features do not depend on stay whole.

    Parameters
    ----------
    data : as for `optiprune.optimize_masks`; targets are not looked at
    budgets, minimum : as for `decide_units`
    decide : "rule": the lowest scores of all groups leave; "engine": widths and units by
        `StructureSweep` with the second loss as its objective
    refit : whether layers that read what is left are fitted again
        (`optiprune.shrinking.refit_and_shrink`)
    engine : further options of `StructureSweep`
    structure : of the student, where it is known

    Raises
    ------
    TrainingError
        A bad option, or budgets that cannot be met.
    TraceError, GateError, CalibrationError, ShrinkingError
        The student cannot be traced; the smaller one is not the masked one; unfit data; budgets
        that the engine cannot meet.
    """
    check_decider(decide, engine, StructureSweep, ("structure", "include", "minimum", "options"))
    check_budgets(decide, budgets)
    samples = samples_of(student, data)
    args, kwargs = example_of(samples)
    if structure is None:
        structure = known_structure(student, (args, kwargs))
    reached = set(_upstream(student, pairs, samples).values())
    groups = [g.name for g in structure.groups if any(m.tensor in reached for m in g.members)]
    if decide == "engine":
        view, regression = pairs.as_regression(teacher, student, samples)
        search = SearchOptions(objective="global", refit=False, loss="mse", seed=seed)
        options: dict[str, Any] = {"options": search, "minimum": minimum, **(engine or {})}
        seen = _seen_by_features(view, structure, reached, (args, kwargs))
        sweep = StructureSweep(
            view,
            regression,  # type: ignore[arg-type]
            **{**options, "structure": seen, "include": groups},
        )
        plan = sweep.plan_at(budgets)
    else:
        scores = feature_unit_scores(teacher, student, pairs, samples, structure)
        plan = lowest_units(
            structure, {k: v for k, v in scores.items() if k in groups}, budgets, minimum=minimum
        )
    if refit:
        smaller = refit_and_shrink(student, plan, samples, structure=structure)  # type: ignore[arg-type]
    else:
        smaller = shrink(student, plan, args, kwargs, structure=structure)
    return Smaller(plan, smaller, decide)
