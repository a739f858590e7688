"""`optimize_structure`: a trained model and a budget in, a smaller model out."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from optiprune import solvers
from optiprune.curvature import CalibrationSet, mean_loss
from optiprune.curvature.losses import LossFunction, has_true_fisher, resolve_loss
from optiprune.curvature.stages import LayerWalk
from optiprune.solvers import Solver, TimeLimit
from optiprune.structure import Plan, Shrunk, Structure, confirmed, find_structure, shrink

from .budgets import budgets_of, costs_of
from .errors import ShrinkingError
from .inputs import arguments_of
from .masking import masked_weights
from .menus import allowed_widths, menus_of
from .objectives import GlobalObjective, Objective, ReconstructionObjective
from .readers import Readers, find_readers
from .refit import refit_readers
from .ties import Ties, find_ties
from .unit_fisher import unit_fisher
from .widths import Widths, choose_widths

__all__ = ["StructureResult", "Tried", "optimize_structure", "refit_and_shrink"]

# of units of one group, at most: most groups end after a few
_EXCHANGES = 100


@dataclass(frozen=True, slots=True, eq=False)
class Tried:
    """A choice of units: its plan, and the loss of the masked model, refitted if asked."""

    plan: Plan
    loss: float


@dataclass(frozen=True, slots=True, eq=False)
class StructureResult:
    """What `optimize_structure` returns.

    Attributes
    ----------
    model : the smaller one; the model that was given is as it was
    plan : the units that left it
    structure : groups of the model that was given
    widths : group's name -> units that it keeps
    chosen : the widths with their predicted damage and the proven bound
    before, after : "parameters", "macs" of one sample, "memory" in bytes
    loss_before, loss_after : on the calibration data
    tried : all choices that were ranked, the best first
    shrunk : with the inputs on which the smaller model was compared with the masked one
    """

    model: nn.Module
    plan: Plan
    structure: Structure
    widths: Mapping[str, int]
    chosen: Widths
    before: Mapping[str, float]
    after: Mapping[str, float]
    loss_before: float
    loss_after: float
    tried: tuple[Tried, ...]
    shrunk: Shrunk


def optimize_structure(
    model: nn.Module,
    data: Iterable[Any],
    *,
    macs: float | None = None,
    parameters: float | None = None,
    memory: float | None = None,
    objective: Literal["global", "reconstruction"] = "reconstruction",
    refit: bool = True,
    multiple: int = 8,
    minimum: float = 0.1,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    curve: Literal["measured", "predicted"] = "measured",
    levels: int = 6,
    curve_samples: int = 512,
    widths: Mapping[str, int] | None = None,
    solutions: int = 1,
    loss: str | LossFunction = "auto",
    solver: str | Solver = "auto",
    solver_seconds: float = 10.0,
    width_solver: str = "highs",
    width_seconds: float = 60.0,
    damping: float = 1e-3,
    per_input: int | None = 64,
    chunk: int = 256,
    structure: Structure | None = None,
    seed: int = 0,
) -> StructureResult:
    """Choose which units of a model stay within a budget, and make the model smaller.

    Parameters
    ----------
    model : is left as it was
    data : as for `optiprune.optimize_masks`: batches of inputs, or pairs (inputs, targets)
    macs, parameters, memory : budgets, one at least, unless ``widths`` are given: a share of the
        model's cost up to 1, or the cost itself. Multiply-adds are of one sample, memory in bytes
        for the first two samples.
    objective : "reconstruction": units whose removal changes the outputs of the layers that read
        them least, once these are fitted again; "global": units by a quadratic of the loss in
        their gates, of all groups at once
    refit : whether the layers that read what is left are fitted again
    multiple : of which numbers of channels and neurons are; 1 allows all
    minimum : share of its units that every group keeps at least
    include, exclude : patterns of names of groups that may lose units
    curve : damages of widths: "measured" on ``curve_samples`` of the data, or as the objective
        predicts them (much faster)
    levels : widths of each group at which damages are looked at
    widths : group's name -> units that it keeps, instead of a search for widths; others stay whole
    solutions : choices of units that are tried, and ranked by their loss
    loss : "auto" (labels where there are any, else the divergence from the model's own outputs),
        "cross_entropy", "mse", "kl", or a callable (outputs, targets) -> mean
    solver, solver_seconds : of the problem which units stay (objective "global")
    width_solver, width_seconds : of the program that gives every group its width: "highs", or a
        name for Pyomo's ``SolverFactory``
    damping : of fits, in mean diagonals of a layer's Gram matrix
    per_input : positions of a layer for each of its columns that fits look at, at most; None all
    structure : groups of this model, where they are known

    Raises
    ------
    ShrinkingError
        No budget; a budget out of reach; no group of units that Linear or Conv2d layers read.
    TraceError, GateError, CalibrationError
        The model cannot be traced; the smaller model is not the masked one; unfit data.
    """
    shares = {"macs": macs, "parameters": parameters, "memory": memory}
    if (widths is None) == all(v is None for v in shares.values()):
        raise ShrinkingError("give a budget (macs, parameters or memory), or widths")
    if multiple < 1 or not 0 <= minimum <= 1 or solutions < 1:
        raise ShrinkingError(
            f"multiple = {multiple} and solutions = {solutions} must be at least 1, minimum = "
            f"{minimum} in [0, 1]"
        )
    run = _Run(model, data, loss, structure, chunk, per_input, damping, seed)
    chooser = run.objective(objective, solver, solver_seconds)
    allowed = allowed_widths(
        run.structure,
        run.readers,
        run.ties,
        multiple=multiple,
        minimum=minimum,
        include=include,
        exclude=exclude,
    )
    if widths is not None:
        chosen = _given(run, widths)
    else:
        budgets = budgets_of(run.structure, shares)
        measure = run.rises(curve_samples) if curve == "measured" else None
        menus = menus_of(allowed, chooser, levels, measure)
        sizes = [g.size for g in run.structure.groups]
        chosen = choose_widths(
            menus, sizes, budgets, equal=run.ties.equal, solver=width_solver, seconds=width_seconds
        )
    tried = []
    for kept in chooser.choose(chosen.widths, solutions):
        weights = run.weights(kept, refit)
        tried.append((run.loss(weights), run.plan(kept), weights, kept))
    tried.sort(key=lambda t: t[0])
    after, plan, weights, kept = tried[0]
    smaller = run.applied(plan, weights)
    return StructureResult(
        model=smaller.model,
        plan=plan,
        structure=run.structure,
        widths={g.name: w for g, w in zip(run.structure.groups, chosen.widths, strict=True)},
        chosen=chosen,
        before=costs_of(run.structure, {}),
        after=costs_of(run.structure, kept),
        loss_before=run.loss({}),
        loss_after=after,
        tried=tuple(Tried(p, value) for value, p, _, _ in tried),
        shrunk=smaller,
    )


def refit_and_shrink(
    model: nn.Module,
    plan: Plan,
    data: Iterable[Any],
    *,
    damping: float = 1e-3,
    per_input: int | None = 64,
    chunk: int = 256,
    structure: Structure | None = None,
) -> Shrunk:
    """The smaller model of a plan, whoever made it, with layers that read what is left refitted.

    Parameters and errors as for `optimize_structure`, and `PlanError` for a plan that does not fit.
    """
    run = _Run(model, data, "kl", structure, chunk, per_input, damping, 0)
    plan.check(run.structure)
    return run.applied(plan, run.weights(plan.kept(run.structure), refit=True))


def _given(run: _Run, widths: Mapping[str, int]) -> Widths:
    """Widths by the user, as if a program had found them."""
    names = [g.name for g in run.structure.groups]
    unknown = sorted(set(widths) - set(names))
    if unknown:
        raise ShrinkingError(f"widths: no group is called {unknown[0]!r}; there are {names[:8]}")
    out = [int(widths.get(g.name, g.size)) for g in run.structure.groups]
    for i, (group, width) in enumerate(zip(run.structure.groups, out, strict=True)):
        step = run.ties.step(i)
        fixed = i in run.ties.whole or i in run.readers.unread
        if not 0 < width <= group.size or width % step or (fixed and width != group.size):
            raise ShrinkingError(
                f"widths: group {group.name!r} has {group.size} units and can keep "
                f"{'all' if fixed else f'a multiple of {step}'}, not {width}"
            )
    for i, j in run.ties.equal:
        if out[i] != out[j]:
            raise ShrinkingError(
                f"widths: {names[i]!r} and {names[j]!r} must be equal, not {out[i]} and {out[j]}"
            )
    return Widths(tuple(out), 0.0, 0.0, optimal=True)


class _Run:
    """What every step needs of the model and the data."""

    def __init__(
        self,
        model: nn.Module,
        data: Iterable[Any],
        loss: str | LossFunction,
        structure: Structure | None,
        chunk: int,
        per_input: int | None,
        damping: float,
        seed: int,
    ) -> None:
        first = next(iter(model.parameters()), None)
        device = torch.device("cpu") if first is None else first.device
        self.model, self.chunk = model, chunk
        self.per_input, self.damping = per_input, damping
        self.data = CalibrationSet.collect(data, device)
        self.seeds = np.random.SeedSequence(seed)
        sample = next(iter(self.data.batches(2))).inputs
        self.args, self.kwargs = arguments_of(sample)
        if structure is None:
            structure = find_structure(model, self.args, self.kwargs)
            structure = confirmed(model, structure, self.args, self.kwargs)
        self.structure = structure
        self.readers: Readers = find_readers(model, structure)
        self.ties: Ties = find_ties(structure)
        self.dense = {k: p.detach() for k, p in model.named_parameters()}
        self.labels = self.data.has_targets and loss != "kl"
        targets = next(iter(self.data.batches(1))).targets
        if loss == "auto" and not self.data.has_targets:
            loss = "kl"
        self.loss_function = resolve_loss(loss, targets)
        self.teacher = self.dense if loss == "kl" else None

    def loss(self, weights: Mapping[str, Tensor], data: CalibrationSet | None = None) -> float:
        """Of the model with some other weights."""
        return mean_loss(
            self.model,
            {**self.dense, **weights},
            data or self.data,
            self.loss_function,
            dense_targets=self.teacher,
            chunk=self.chunk,
        )

    def rises(self, samples: int) -> Any:
        (seed,) = self.seeds.spawn(1)
        part = self.data.sample(samples, np.random.default_rng(seed))
        before = self.loss({}, part)
        return lambda weights: self.loss(weights, part) - before

    def objective(self, name: str, solver: str | Solver, seconds: float) -> Objective:
        if name == "reconstruction":
            return ReconstructionObjective(
                [g.size for g in self.structure.groups],
                self.readers,
                self.dense,
                self._grams(),
                self.ties,
                damping=self.damping,
                exchanges=_EXCHANGES,
            )
        if name != "global":
            raise ShrinkingError(f"objective {name!r}: there are 'reconstruction' and 'global'")
        if not has_true_fisher(self.loss_function):
            raise ShrinkingError(
                "objective 'global' draws labels from the model's outputs: it needs the loss "
                "'cross_entropy', 'mse' or 'kl', not a callable"
            )
        fisher, search = self.seeds.spawn(2)
        quadratic = unit_fisher(
            self.model,
            self.structure,
            self.readers,
            self.data,
            self.loss_function,
            fisher,
            labels=self.labels,
            chunk=self.chunk,
        )
        chosen = solvers.get(solver) if isinstance(solver, str) else solver
        return GlobalObjective(
            quadratic, self.readers, self.dense, self.ties, chosen, TimeLimit(seconds), search
        )

    def _grams(self) -> dict[str, Any]:
        layers = [r.layer for r in self.readers.readers]
        walk = LayerWalk(
            self.model, layers, self.dense, [self.data], self.chunk, "dense", self.per_input
        )
        return {name: gram for stage in walk for name, gram in stage.grams[0].items()}

    def weights(self, kept: Mapping[int, npt.NDArray[np.bool_]], refit: bool) -> dict[str, Tensor]:
        """Of the layers that read units, for this choice."""
        if not refit or not kept:
            return masked_weights(self.readers, self.dense, kept)
        return refit_readers(
            self.model,
            self.readers,
            self.dense,
            kept,
            self.data,
            damping=self.damping,
            chunk=self.chunk,
            per_input=self.per_input,
        )

    def plan(self, kept: Mapping[int, npt.NDArray[np.bool_]]) -> Plan:
        names = [g.name for g in self.structure.groups]
        return Plan.of(
            self.structure, {names[g]: np.flatnonzero(~k).tolist() for g, k in kept.items()}
        )

    def applied(self, plan: Plan, weights: Mapping[str, Tensor]) -> Shrunk:
        moved = copy.deepcopy(self.model)
        own = dict(moved.named_parameters())
        with torch.no_grad():
            for name, value in weights.items():
                own[name].copy_(value)
        return shrink(moved, plan, self.args, self.kwargs, structure=self.structure)
