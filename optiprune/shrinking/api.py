"""`optimize_structure`: a trained model and a budget in, a smaller model out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from optiprune.curvature.losses import LossFunction
from optiprune.solvers import Solver
from optiprune.structure import Plan, Shrunk, Structure

from .budgets import budgets_of, costs_of
from .errors import ShrinkingError
from .latency import Profile, latency_budget, profile_layers
from .menus import allowed_widths
from .search import ObjectiveName, Search, SearchOptions
from .widths import Menu, Widths, choose_widths

__all__ = [
    "StructureResult",
    "StructureSweep",
    "Tried",
    "optimize_structure",
    "refit_and_shrink",
    "sweep_structure",
]


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
    before, after : "parameters", "macs" of one sample, "memory" in bytes; with a budget for latency
        "latency" in seconds, after as the table predicts it
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
    latency: float | None = None,
    widths: Mapping[str, int] | None = None,
    objective: ObjectiveName = "reconstruction",
    refit: bool = True,
    multiple: int = 8,
    minimum: float = 0.1,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    curve: Literal["measured", "predicted"] = "measured",
    levels: int = 6,
    curve_samples: int = 512,
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
    macs, parameters, memory : budgets, one at least of these, latency and widths: a share of the
        model's cost up to 1, or the cost itself. Multiply-adds are of one sample; memory is in
        bytes, for the first two samples.
    latency : budget as a share of what the model takes for the first two samples on this machine,
        with the threads of now
    widths : group's name -> units that it keeps, instead of a search for widths; others stay whole
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
    solutions : choices of units that are tried, and ranked by their loss
    loss : "auto" (labels where there are any, else the divergence from the model's own outputs),
        "cross_entropy", "mse", "kl", or a callable (outputs, targets) -> mean
    solver, solver_seconds : of the problem which units stay (objective "global")
    width_solver, width_seconds : of the program that gives every group its width: "highs", or a
        name for Pyomo's ``SolverFactory``
    damping : of fits, in mean diagonals of a layer's Gram matrix
    per_input : positions of a layer for each of its columns that fits look at, at most; None all
    chunk : samples at once
    structure : groups of this model, where they are known
    seed : of everything that is drawn

    Raises
    ------
    ShrinkingError
        No budget; a budget out of reach; no group of units that Linear or Conv2d layers read.
    TraceError, GateError, CalibrationError
        The model cannot be traced; the smaller model is not the masked one; unfit data.
    """
    shares = {"macs": macs, "parameters": parameters, "memory": memory, "latency": latency}
    if (widths is None) == all(v is None for v in shares.values()):
        raise ShrinkingError("give a budget (macs, parameters, memory or latency), or widths")
    if solutions < 1:
        raise ShrinkingError(f"solutions = {solutions} must be at least 1")
    _check_latency(latency)
    options = SearchOptions(
        objective=objective,
        refit=refit,
        curve=curve,
        levels=levels,
        curve_samples=curve_samples,
        loss=loss,
        solver=solver,
        solver_seconds=solver_seconds,
        damping=damping,
        per_input=per_input,
        chunk=chunk,
        seed=seed,
    )
    search = Search(model, data, options, structure)
    if widths is not None:
        return _chosen(search, _given(search, widths), solutions, {}, {})
    menus = _menus(search, multiple, minimum, include, exclude)
    profile = None if latency is None else _profile(search, menus)
    chosen = _widths_within(search, menus, profile, shares, width_solver, width_seconds)
    return _chosen_within(search, menus, profile, chosen, solutions)


def sweep_structure(
    model: nn.Module,
    data: Iterable[Any],
    *,
    budget: Literal["macs", "parameters", "memory", "latency"] = "macs",
    values: Sequence[float] = (0.8, 0.65, 0.5, 0.35),
    multiple: int = 8,
    minimum: float = 0.1,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    solutions: int = 1,
    width_solver: str = "highs",
    width_seconds: float = 60.0,
    options: SearchOptions | None = None,
    structure: Structure | None = None,
) -> list[StructureResult]:
    """`optimize_structure` at several values of one budget; damages of widths are measured once.

    Parameters
    ----------
    budget, values : which one, and its shares or costs
    options : what else `optimize_structure` takes

    The others, and errors, are those of `optimize_structure`. `plot_sweep` draws the results.
    """
    if budget == "latency":
        for value in values:
            _check_latency(value)
    sweep = StructureSweep(
        model,
        data,
        multiple=multiple,
        minimum=minimum,
        include=include,
        exclude=exclude,
        solutions=solutions,
        width_solver=width_solver,
        width_seconds=width_seconds,
        options=options,
        structure=structure,
    )
    return [sweep.at({budget: v}) for v in values]


class StructureSweep:
    """`optimize_structure` at one budget after another; damages of widths are measured once.

    Parameters as for `sweep_structure`.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Iterable[Any],
        *,
        multiple: int = 8,
        minimum: float = 0.1,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        solutions: int = 1,
        width_solver: str = "highs",
        width_seconds: float = 60.0,
        options: SearchOptions | None = None,
        structure: Structure | None = None,
    ) -> None:
        self._search = Search(model, data, options or SearchOptions(), structure)
        self._menus = _menus(self._search, multiple, minimum, include, exclude)
        self._profile: Profile | None = None
        self._solutions, self._solver, self._seconds = solutions, width_solver, width_seconds

    def at(self, budgets: Mapping[str, float | None]) -> StructureResult:
        """The result at these budgets ("macs", "parameters", "memory", "latency").

        Raises as `optimize_structure` does.
        """
        profile = self._profiled(budgets)
        chosen = self._widths(budgets, profile)
        return _chosen_within(self._search, self._menus, profile, chosen, self._solutions)

    def plan_at(self, budgets: Mapping[str, float | None]) -> Plan:
        """The units that would leave, by the objective alone; nothing is fitted or made smaller."""
        chosen = self._widths(budgets, self._profiled(budgets))
        return self._search.plan(self._search.objective.choose(chosen.widths, 1)[0])

    def _profiled(self, budgets: Mapping[str, float | None]) -> Profile | None:
        _check_latency(budgets.get("latency"))
        if budgets.get("latency") is None:
            return None
        if self._profile is None:
            self._profile = _profile(self._search, self._menus)
        return self._profile

    def _widths(self, budgets: Mapping[str, float | None], profile: Profile | None) -> Widths:
        if all(v is None for v in budgets.values()):
            raise ShrinkingError("give a budget (macs, parameters, memory or latency)")
        return _widths_within(
            self._search, self._menus, profile, budgets, self._solver, self._seconds
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
    options = SearchOptions(loss="kl", damping=damping, per_input=per_input, chunk=chunk)
    search = Search(model, data, options, structure)
    plan.check(search.structure)
    return search.applied(plan, search.weights(plan.kept(search.structure)))


def _menus(
    search: Search,
    multiple: int,
    minimum: float,
    include: Sequence[str],
    exclude: Sequence[str],
) -> list[Menu]:
    if multiple < 1 or not 0 <= minimum <= 1:
        raise ShrinkingError(
            f"multiple = {multiple} must be at least 1, minimum = {minimum} in [0, 1]"
        )
    return search.menus(
        allowed_widths(
            search.structure,
            search.ties,
            search.whole,
            multiple=multiple,
            minimum=minimum,
            include=include,
            exclude=exclude,
        )
    )


def _check_latency(latency: float | None) -> None:
    if latency is not None and not 0 < latency <= 1:
        raise ShrinkingError(f"latency = {latency!r}: it is a share in (0, 1] of that of now")


def _profile(search: Search, menus: Sequence[Menu]) -> Profile:
    return profile_layers(search.model, search.structure, menus, search.args, search.kwargs)


def _widths_within(
    search: Search,
    menus: Sequence[Menu],
    profile: Profile | None,
    shares: Mapping[str, float | None],
    width_solver: str,
    width_seconds: float,
) -> Widths:
    limits = dict(shares)
    latency = limits.pop("latency", None)
    budgets = budgets_of(search.structure, limits)
    if profile is not None and latency is not None:
        budgets.append(latency_budget(profile, latency))
    return choose_widths(
        menus,
        search.sizes,
        budgets,
        equal=search.ties.equal,
        solver=width_solver,
        seconds=width_seconds,
    )


def _chosen_within(
    search: Search,
    menus: Sequence[Menu],
    profile: Profile | None,
    chosen: Widths,
    solutions: int,
) -> StructureResult:
    if profile is None:
        return _chosen(search, chosen, solutions, {}, {})
    return _chosen(
        search,
        chosen,
        solutions,
        {"latency": profile.seconds},
        {"latency": profile.predicted(menus, chosen.widths)},
    )


def _chosen(
    search: Search,
    chosen: Widths,
    solutions: int,
    before: Mapping[str, float],
    after: Mapping[str, float],
) -> StructureResult:
    """The units of these widths, the best of several choices, out of the model."""
    tried = []
    for kept in search.objective.choose(chosen.widths, solutions):
        weights = search.weights(kept)
        tried.append((search.loss(weights), search.plan(kept), weights, kept))
    tried.sort(key=lambda t: t[0])
    loss, plan, weights, kept = tried[0]
    smaller = search.applied(plan, weights)
    names = [g.name for g in search.structure.groups]
    return StructureResult(
        model=smaller.model,
        plan=plan,
        structure=search.structure,
        widths=dict(zip(names, chosen.widths, strict=True)),
        chosen=chosen,
        before={**costs_of(search.structure, {}), **before},
        after={**costs_of(search.structure, kept), **after},
        loss_before=search.dense_loss,
        loss_after=loss,
        tried=tuple(Tried(p, value) for value, p, _, _ in tried),
        shrunk=smaller,
    )


def _given(search: Search, widths: Mapping[str, int]) -> Widths:
    """Widths by the user, as if a program had found them."""
    names = [g.name for g in search.structure.groups]
    unknown = sorted(set(widths) - set(names))
    if unknown:
        raise ShrinkingError(f"widths: no group is called {unknown[0]!r}; there are {names[:8]}")
    out = [int(widths.get(g.name, g.size)) for g in search.structure.groups]
    for i, (group, width) in enumerate(zip(search.structure.groups, out, strict=True)):
        step = search.ties.step(i)
        fixed = i in search.whole
        if not 0 < width <= group.size or width % step or (fixed and width != group.size):
            raise ShrinkingError(
                f"widths: group {group.name!r} has {group.size} units and can keep "
                f"{'all' if fixed else f'a multiple of {step}'}, not {width}"
            )
    for i, j in search.ties.equal:
        if out[i] != out[j]:
            raise ShrinkingError(
                f"widths: {names[i]!r} and {names[j]!r} must be equal, not {out[i]} and {out[j]}"
            )
    return Widths(tuple(out), 0.0, 0.0, optimal=True)
