"""Units that do nothing, out of the model without a trace.

A unit is dead where every layer that reads it has only zeros for it, or reads the same number from
it whatever the inputs: its weights are zero, and what is left of it is a bias through norm and
activation. That number, times the weights that read it, goes into the reading layer's bias. Where
zero padding would make this inexact, the numbers of all dead units go through one of them that
stays: one channel of ones, up to a factor.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from .constants import evaluate
from .gate import Compared, compare, variations
from .groups import Structure, structure_of
from .modes import evaluating
from .plan import Plan
from .reads import Read, reads_of
from .removal import largest_removal
from .shrink import shrink
from .trace import tensors_of, trace

__all__ = ["WithoutDead", "remove_dead"]

_ROUNDS = 50


@dataclass(frozen=True, slots=True, eq=False)
class WithoutDead:
    """What `remove_dead` returns.

    Attributes
    ----------
    model : the smaller one; the model that was given is as it was
    removed : group's name -> how many of its units left, over all rounds
    rounds : after how many of them nothing was dead any more
    compared : inputs on which it was compared with the model that was given
    parameters_before, parameters_after : numbers of elements, tied ones once
    """

    model: nn.Module
    removed: Mapping[str, int]
    rounds: int
    compared: tuple[Compared, ...]
    parameters_before: int
    parameters_after: int


def remove_dead(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
) -> WithoutDead:
    """Remove all units that do nothing, and compare with the model as it was.

    A unit that is read by removed units alone is dead in the next round. Where groups of a
    convolution or halves of a tensor must keep equally many units, as many dead ones leave as that
    allows. A group always keeps one unit.

    Parameters
    ----------
    args, kwargs : what the model is called with; see `optiprune.structure.shrink`

    Raises
    ------
    TraceError
        torch.export cannot follow the model.
    GateError
        The smaller model does not compute what the given one computes.
    """
    kwargs = kwargs or {}
    work = copy.deepcopy(model)
    removed: dict[str, int] = {}
    rounds = 0
    while rounds < _ROUNDS:
        traced = trace(work, args, kwargs)
        structure = structure_of(work, traced, args, kwargs)
        with evaluating(work):
            values = evaluate(work, traced, args, kwargs)
        reads = reads_of(work, structure, traced, values)
        del values
        plan = _plan(structure, reads)
        if not plan.removed:
            break
        _carry(work, plan, structure, reads)
        work = shrink(work, plan, args, kwargs, structure=structure, latency_repeats=0).model
        for name, units in plan.removed.items():
            removed[name] = removed.get(name, 0) + len(units)
        rounds += 1
    before = copy.deepcopy(model).eval()
    after = copy.deepcopy(work).eval()
    names = ("given one", "model without dead units")
    compared = compare(before, after, variations(args, kwargs), names=names)
    sizes = [sum(p.numel() for p in m.parameters()) for m in (model, work)]
    return WithoutDead(work, removed, rounds, tuple(compared), *sizes)


def _plan(structure: Structure, reads: list[Read]) -> Plan:
    dead = [np.ones(g.size, dtype=bool) for g in structure.groups]
    read = [np.zeros(g.size, dtype=bool) for g in structure.groups]
    inexact = [np.zeros(g.size, dtype=bool) for g in structure.groups]
    for r in reads:
        carried = r.fixed & (r.layer | (r.value == 0))
        quiet = r.zero | carried
        border = carried & ~r.zero & (r.value != 0) & r.padded
        for channel in np.flatnonzero(r.group >= 0):
            g, u = r.group[channel], r.unit[channel]
            read[g][u] = True
            dead[g][u] &= quiet[channel]
            inexact[g][u] |= border[channel]
    for g in range(len(dead)):
        dead[g] &= read[g]  # what no layer reads goes elsewhere: to a barrier that holds it
        needing = dead[g] & inexact[g]
        if needing.any():
            ones = _ones(reads, g, needing)
            if ones is None:
                dead[g] &= ~inexact[g]
            else:
                dead[g][ones] = False
    return Plan.of(structure, largest_removal(structure, dead))


def _ones(reads: list[Read], group: int, needing: npt.NDArray[np.bool_]) -> int | None:
    """The unit that carries the others' numbers past the borders, or None."""
    able = needing.copy()
    for r in reads:
        if not r.padded:
            continue
        here = r.group == group
        units = r.unit[here]
        needs = here & ~r.zero & (r.value != 0) & r.fixed & np.isin(r.unit, np.flatnonzero(needing))
        if not needs.any():
            continue
        if r.groups > 1:
            return None
        strong = np.zeros_like(able)
        strong[units[(r.value[here] != 0) & r.fixed[here]]] = True
        able &= strong
    return int(np.flatnonzero(able)[0]) if able.any() else None


def _carry(model: nn.Module, plan: Plan, structure: Structure, reads: list[Read]) -> None:
    """Move what the leaving units give to biases, or to the unit of ones, in place."""
    kept = plan.kept(structure)
    tensors = tensors_of(model)
    owners: dict[int, nn.Module] = {
        id(p): m for m in model.modules() for p in m._parameters.values() if p is not None
    }
    with torch.no_grad():
        for r in reads:
            leaving = np.array(
                [g in kept and not kept[g][u] for g, u in zip(r.group, r.unit, strict=True)]
            )
            active = leaving & ~r.zero & (r.value != 0)
            if not active.any():
                continue
            weight = tensors[r.weight]
            if r.padded:
                for g in set(r.group[active].tolist()):
                    _through_ones(weight, r, active & (r.group == g), kept[g])
            else:
                _into_bias(owners[id(weight)], weight, r, active)


def _through_ones(
    weight: Tensor, r: Read, active: npt.NDArray[np.bool_], kept: npt.NDArray[np.bool_]
) -> None:
    stays = (r.group == r.group[active][0]) & r.fixed & (r.value != 0)
    stays &= np.array([bool(kept[u]) if u >= 0 else False for u in r.unit])
    one = int(np.flatnonzero(stays)[0])
    total = weight[:, one].double()
    for channel in np.flatnonzero(active):
        total = total + weight[:, channel].double() * (r.value[channel] / r.value[one])
    weight[:, one] = total.to(weight.dtype)


def _into_bias(owner: nn.Module, weight: Tensor, r: Read, active: npt.NDArray[np.bool_]) -> None:
    rows = weight.shape[0] // r.groups
    columns = weight.shape[1]
    shift = torch.zeros(weight.shape[0], dtype=torch.float64, device=weight.device)
    for channel in np.flatnonzero(active):
        k, column = divmod(int(channel), columns)
        part = slice(k * rows, (k + 1) * rows)
        reading = weight[part, column].double().reshape(rows, -1).sum(1)
        shift[part] += reading * float(r.value[channel])
    bias: Any = owner.bias
    if bias is None:
        grad = weight.requires_grad
        owner.bias = nn.Parameter(shift.to(weight.dtype), requires_grad=grad)
    else:
        bias.copy_((bias.double() + shift).to(bias.dtype))
