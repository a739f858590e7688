"""A model without the units that a plan names: smaller tensors in ordinary modules."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from .attributes import AttributeChange, attribute_changes, set_attributes
from .gate import Compared, GateError, compare, variations
from .groups import Structure, find_structure
from .plan import Plan, cuts_of
from .sizes import total
from .surgery import Cut, SurgeryError, cut_tensors
from .timing import alternated
from .trace import tensors_of

__all__ = ["Shrunk", "mask_units", "shrink"]


@dataclass(frozen=True, slots=True, eq=False)
class Shrunk:
    """What `shrink` returns.

    Attributes
    ----------
    model : the smaller one; the model that was given is as it was
    compared : inputs on which it was compared with the masked model
    attributes : numbers on modules that were changed with the sizes which they repeat
    shapes : tensor's name -> its shape before and after, of those that lost something
    parameters_before, parameters_after : numbers of elements, tied ones once
    macs_before, macs_after : multiply-adds of one sample
    latency_before, latency_after : median seconds of a forward on the inputs that were given, in
        turns in one run on this machine; None if not asked for
    """

    model: nn.Module
    compared: tuple[Compared, ...]
    attributes: tuple[AttributeChange, ...]
    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    parameters_before: int
    parameters_after: int
    macs_before: float
    macs_after: float
    latency_before: float | None
    latency_after: float | None


def mask_units(model: nn.Module, structure: Structure, plan: Plan) -> None:
    """Zero everything that the plan removes, in place."""
    _zero(model, cuts_of(structure, plan, _shapes(model)))


def _zero(model: nn.Module, cuts: Mapping[str, Cut]) -> None:
    tensors = tensors_of(model)
    with torch.no_grad():
        for name, cut in cuts.items():
            cut.zero(tensors[name])


def shrink(
    model: nn.Module,
    plan: Plan,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    structure: Structure | None = None,
    latency_repeats: int = 5,
) -> Shrunk:
    """Remove the units of a plan from a copy of the model, and compare it with the masked model.

    Parameters
    ----------
    model : is left as it was
    args, kwargs : what it is called with; it is compared on these, on twice the batch, and on
        another size where the model takes one
    structure : of this model, where it is known
    latency_repeats : measurements of the forward, before and after; 0 for none

    Raises
    ------
    PlanError
        The plan does not fit the model.
    GateError
        The copy fails, or does not compute what the masked model computes.
    """
    kwargs = kwargs or {}
    if structure is None:
        structure = find_structure(model, args, kwargs)
    plan.check(structure)
    shapes = _shapes(model)
    cuts = cuts_of(structure, plan, shapes)
    masked = copy.deepcopy(model).eval()
    _zero(masked, cuts)
    smaller = copy.deepcopy(model).eval()
    try:
        cut_tensors(smaller, cuts)
    except SurgeryError as error:
        raise GateError(str(error)) from error
    inputs = variations(args, kwargs)
    changes: tuple[AttributeChange, ...] = ()
    try:
        compared = compare(masked, smaller, inputs, rounding=True)
    except GateError:
        changes = attribute_changes(model, structure, plan, cuts, shapes)
        if not changes:
            raise
        set_attributes(smaller, changes)
        compared = compare(masked, smaller, inputs, rounding=True)
    latency = _latency(masked, smaller, args, kwargs, latency_repeats)
    for before, after in zip(model.modules(), smaller.modules(), strict=True):
        after.training = before.training
    now = _shapes(smaller)
    return Shrunk(
        model=smaller,
        compared=tuple(compared),
        attributes=changes,
        shapes={k: (shapes[k], now[k]) for k in shapes if shapes[k] != now[k]},
        parameters_before=_size(model),
        parameters_after=_size(smaller),
        macs_before=total(structure.multiply_adds, {}) / structure.samples,
        macs_after=total(structure.multiply_adds, plan.kept(structure)) / structure.samples,
        latency_before=latency[0],
        latency_after=latency[1],
    )


def _latency(
    masked: nn.Module,
    smaller: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    repeats: int,
) -> tuple[float, float] | tuple[None, None]:
    if not repeats:
        return None, None

    def run(model: nn.Module) -> None:
        with torch.no_grad():
            model(*args, **kwargs)

    devices = {t.device for t in tensors_of(smaller).values()}
    return alternated(
        partial(run, masked), partial(run, smaller), repeats=repeats, warmup=1, devices=devices
    )


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {k: tuple(t.shape) for k, t in tensors_of(model).items()}


def _size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
