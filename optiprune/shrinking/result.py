"""What a choice of units gives, and the making of it from widths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from optiprune.structure import Plan, Shrunk, Structure

from .budgets import costs_of
from .search import Search
from .widths import Widths

__all__ = ["StructureResult", "Tried", "result_of"]


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


def result_of(
    search: Search,
    chosen: Widths,
    solutions: int,
    before: Mapping[str, float] | None = None,
    after: Mapping[str, float] | None = None,
) -> StructureResult:
    """The units of these widths, the best of several choices, out of the model.

    ``before``, ``after``: costs beside those that the structure knows.
    """
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
        before={**costs_of(search.structure, {}), **(before or {})},
        after={**costs_of(search.structure, kept), **(after or {})},
        loss_before=search.dense_loss,
        loss_after=loss,
        tried=tuple(Tried(p, value) for value, p, _, _ in tried),
        shrunk=smaller,
    )
