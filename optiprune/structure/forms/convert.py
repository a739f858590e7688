"""What every pass does: try a form of each candidate, measure, replace, compare the models."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from optiprune.structure.gate import Compared, compare, variations
from optiprune.structure.timing import Measure, alternated

from .candidates import FormError, Seen, inputs_seen, swap

__all__ = ["Converted", "FormRecord", "convert"]

# of the two models, in errors of the comparison
_NAMES = ("given one", "new model")


@dataclass(frozen=True, slots=True)
class FormRecord:
    """What a pass did at one place.

    Attributes
    ----------
    module : the name that it has first in the model, "" for the model itself
    form : "dense kernel", "transposed convolution" or "without rows and columns of zeros"
    before_s, after_s : median seconds of all its calls in one run of the model on the example
        inputs, as it was and in this form; None where nothing was measured
    replaced : whether the new model has the form there
    reason : why, or why not
    """

    module: str
    form: str
    before_s: float | None
    after_s: float | None
    replaced: bool
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Converted:
    """What a pass returns.

    Attributes
    ----------
    model : the new one; the model that was given is as it was
    records : one for every module that could be replaced, and every place that stays as it is
    compared : inputs on which both models were compared
    """

    model: nn.Module
    records: tuple[FormRecord, ...]
    compared: tuple[Compared, ...]


def convert(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    wanted: Callable[[nn.Module], bool],
    name: str,
    form: Callable[[nn.Module, Sequence[Seen]], nn.Module],
    threshold: float | None,
    tolerance: float,
    repeats: int,
    measure: Measure | None,
) -> Converted:
    """Replace the modules that are wanted by a form of them, in a copy of the model.

    Parameters
    ----------
    wanted : whether a module is a candidate
    name : of the form, in the records
    form : makes a module from a candidate and what it reads; raises FormError where there is none
    threshold : largest share of the time at which it is replaced; None: however long it takes

    Raises
    ------
    GateError
        The copy does not compute what the model computes.
    ValueError
        ``threshold`` is not above 0.
    """
    if threshold is not None and not threshold > 0:
        raise ValueError(f"threshold={threshold}: the share of the time must be above 0")
    reference = copy.deepcopy(model).eval()
    work = copy.deepcopy(model)
    training = {m: m.training for m in work.modules()}
    work.eval()
    places = {m: where for where, m in work.named_modules() if wanted(m)}
    seen = inputs_seen(work, places, args, kwargs)
    if measure is None:
        devices = {s.device for calls in seen.values() for s in calls}
        measure = partial(alternated, repeats=repeats, devices=devices)
    owners = Counter(id(p) for m in training for p in m._parameters.values() if p is not None)
    new: dict[nn.Module, nn.Module] = {}
    records = []
    for old, where in places.items():
        before = after = None
        try:
            if not seen[old]:
                raise FormError("it does not run on these inputs")
            if any(owners[id(p)] > 1 for p in old.parameters(recurse=False)):
                raise FormError("it shares a parameter with another module")
            candidate = form(old, seen[old])
            before, after = _measured(old, candidate, seen[old], measure)
        except FormError as error:
            reason = str(error)
        else:
            if threshold is None or after <= threshold * before:
                new[old] = candidate
            reason = f"takes {after:.3g} s instead of {before:.3g} s"
        records.append(FormRecord(where, name, before, after, old in new, reason))
    result = swap(work, new)
    compared = compare(reference, result, variations(args, kwargs), tolerance, _NAMES)
    for module, mode in training.items():
        module.training = mode
        if module in new:
            new[module].train(mode)
    return Converted(result, tuple(records), tuple(compared))


def _measured(
    old: nn.Module, new: nn.Module, seen: Sequence[Seen], measure: Measure
) -> tuple[float, float]:
    """Seconds of all calls of one run of the model, in either form."""
    keys = [(s.meta.shape, s.meta.stride(), s.meta.dtype, s.device) for s in seen]
    # one tensor for all calls of a kind: a model may call a module a thousand times
    kinds = dict(zip(keys, seen, strict=True))
    tensors = {key: s.ones() for key, s in kinds.items()}
    inputs = [tensors[key] for key in keys]

    def run(module: nn.Module) -> None:
        with torch.no_grad():
            for x in inputs:
                module(x)

    try:
        return measure(partial(run, old), partial(run, new))
    except RuntimeError as error:  # no kernel for this dtype, or no memory
        raise FormError(f"the form does not run: {error}") from error
