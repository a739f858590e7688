"""`optimize_structure`: a trained model and a budget in, a smaller model out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from torch import nn

from optiprune.curvature.losses import LossFunction
from optiprune.solvers import Solver
from optiprune.structure import Plan, Shrunk, Structure

from .errors import ShrinkingError
from .result import StructureResult, result_of
from .search import ObjectiveName, Search, SearchOptions
from .sweep import StructureSweep, check_latency
from .widths import Widths

__all__ = ["optimize_structure", "refit_and_shrink"]


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
    check_latency(latency)
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
    if widths is not None:
        search = Search(model, data, options, structure)
        return result_of(search, _given(search, widths), solutions)
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
    return sweep.at(shares)


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
