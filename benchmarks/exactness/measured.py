"""One network: its groups, a smaller model, and how far that is from the masked one."""

from __future__ import annotations

import copy
import time
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.models.zoo import network
from optiprune.structure import Structure, confirmed, find_structure, mask_units, shrink, total
from optiprune.structure.timing import alternated
from optiprune.structure.units import KERNEL

from .plans import random_plan

__all__ = ["WRONG", "Row", "measure"]

# a smaller model that is further from the masked one was returned wrongly
WRONG = 1e-5


@dataclass(slots=True)
class Row:
    """What the table tells of a network.

    Attributes
    ----------
    error : largest difference from the masked model, over the largest output, on new inputs
    moved : the same difference between the dense and the masked model: what the plan does
    macs_before, macs_after : as predicted from the groups
    onnx : error of the exported smaller model in onnxruntime, or why there is none
    held : kinds of barriers that hold units, the most frequent first, with their indices
    notes : what is not as it should be
    """

    name: str
    groups: int = 0
    units: int = 0
    unconfirmed: int = 0
    parameters_before: int = 0
    parameters_after: int = 0
    macs_before: float = 0.0
    macs_after: float = 0.0
    error: float | None = None
    moved: float = 0.0
    before_s: float = 0.0
    after_s: float = 0.0
    onnx: str = ""
    held: tuple[tuple[str, int], ...] = ()
    attributes: int = 0
    notes: tuple[str, ...] = ()
    failed: str = ""


def measure(name: str, *, seed: int = 0, repeats: int = 9, onnx: bool = True) -> Row:
    """Find, confirm, shrink and compare one network."""
    example = network(name, seed)
    model, args, kwargs = example.model, example.args, dict(example.kwargs)
    row = Row(name, parameters_before=sum(p.numel() for p in model.parameters()))
    with torch.no_grad():
        model(*args, **kwargs)  # some models keep what they computed in their first run
    counted = torch_macs(model, args, kwargs)
    found = find_structure(model, args, kwargs)
    structure = confirmed(model, found, args, kwargs)
    row.groups = len(structure.groups)
    row.units = sum(g.size for g in structure.groups)
    row.unconfirmed = len(found.groups) - len(structure.groups)
    row.held = _held(structure)
    row.macs_before = total(structure.multiply_adds, {})
    notes = []
    if abs(counted - row.macs_before) > 0.5:
        share = counted / max(1.0, row.macs_before)
        notes.append(f"torch counts {share:.4f} times the multiply-adds of the dense model")
    if not structure.groups:
        row.parameters_after, row.macs_after = row.parameters_before, row.macs_before
        row.notes = tuple(notes)
        return row
    plan = random_plan(structure, seed)
    result = shrink(model, plan, args, kwargs, structure=structure, latency_repeats=0)
    small = result.model
    row.attributes = len(result.attributes)
    kept = plan.kept(structure)
    row.parameters_after = sum(p.numel() for p in small.parameters())
    if round(total(structure.parameters, kept)) != row.parameters_after:
        predicted = round(total(structure.parameters, kept))
        notes.append(f"WRONG SIZE: {predicted} parameters predicted")
    row.macs_after = total(structure.multiply_adds, kept)
    after = torch_macs(small, args, kwargs)
    # what torch does not count of the dense model it does not count of the smaller one
    if counted == row.macs_before and abs(after - row.macs_after) > 0.5:
        notes.append(f"WRONG SIZE: {after:.0f} multiply-adds, {row.macs_after:.0f} predicted")
    masked = copy.deepcopy(model)
    mask_units(masked, structure, plan)
    row.error, row.moved = 0.0, 0.0
    for trial in range(2):
        new_args, new_kwargs = fresh((args, kwargs), seed + 1 + trial)
        with torch.no_grad():
            dense = outputs(model(*new_args, **new_kwargs))
            want = outputs(masked(*new_args, **new_kwargs))
            got = outputs(small(*new_args, **new_kwargs))
        row.error = max(row.error, difference(want, got))
        row.moved = max(row.moved, difference(dense, want))
    if row.error > WRONG:
        inexact, row.error = row.error, in_double(masked, small, args, kwargs, seed + 1)
        notes.append(
            f"rounding in float32 is {inexact:.1e}; the error told is that of both in float64"
        )
    if row.moved < 1e-3:
        notes.append("the plan hardly changes the outputs")
    with torch.inference_mode():
        # the processor's time: other work on the machine does not count
        row.before_s, row.after_s = alternated(
            lambda: model(*args, **kwargs),
            lambda: small(*args, **kwargs),
            repeats=repeats,
            at_least_s=5e-3,
            clock=time.process_time,
        )
    if onnx:
        row.onnx = onnx_error(model, small, args, kwargs)
    row.notes = tuple(notes)
    return row


def _held(structure: Structure) -> tuple[tuple[str, int], ...]:
    count: Counter[str] = Counter()
    for h in structure.held:
        if h.barrier.reason != KERNEL:
            operation = h.barrier.operation.removeprefix("aten.").removesuffix(".default")
            count[f"{operation}: {h.barrier.reason}"] += h.count
    return tuple(count.most_common())


def torch_macs(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float:
    """Multiply-adds as torch counts them, attention by its products."""
    counter = FlopCounterMode(display=False)
    frozen = copy.deepcopy(model).requires_grad_(False)  # whose hooks want no gradients
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operation for a layer, not counted
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            frozen(*args, **kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops() / 2


def fresh(value: Any, seed: int) -> Any:
    """Other inputs of the same kind: noise for noise, other tokens for tokens."""
    generator = torch.Generator().manual_seed(seed)

    def draw(x: Tensor) -> Tensor:
        if x.is_floating_point():
            return torch.randn(x.shape, generator=generator)
        if int(x.max()) > 1:  # else it is a mask
            return torch.randint(3, int(x.max()) + 1, x.shape, generator=generator)
        return x

    return tree_map_only(Tensor, draw, value)


def outputs(value: Any) -> list[Tensor]:
    """Floating-point tensors of an output, in order."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, Mapping):
        return [t for v in value.values() for t in outputs(v)]
    if isinstance(value, tuple | list):
        return [t for v in value for t in outputs(v)]
    return []


def difference(want: list[Tensor], got: list[Tensor]) -> float:
    """The largest of any output, over the largest magnitude of that output."""
    if [t.shape for t in want] != [t.shape for t in got]:
        return float("inf")
    worst = 0.0
    for a, b in zip(want, got, strict=True):
        off = float((a - b).abs().max()) / max(float(a.abs().max()), 1e-30)
        worst = max(worst, off if off == off else float("inf"))
    return worst


def in_double(
    masked: nn.Module,
    small: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    seed: int,
) -> float:
    """What is left of a difference in float64."""
    new_args, new_kwargs = tree_map_only(
        Tensor, lambda t: t.double() if t.is_floating_point() else t, fresh((args, kwargs), seed)
    )
    with torch.no_grad():
        want, got = (
            outputs(copy.deepcopy(m).double()(*new_args, **new_kwargs)) for m in (masked, small)
        )
    return difference(want, got)


def onnx_error(
    dense: nn.Module, small: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> str:
    """Of the smaller model in onnxruntime; what the dense model cannot do either is told so."""

    def exported(model: nn.Module) -> float:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model, args, kwargs=dict(kwargs), dynamo=True, verbose=False
            )
            assert program is not None
            got = [t for t in program(*args, **kwargs) if t.is_floating_point()]
            return difference(outputs(model(*args, **kwargs)), got)

    try:
        return f"{exported(small):.1e}"
    except Exception as error:
        why = _short(error)
    try:
        exported(dense)
    except Exception:
        return f"not exportable: {why}"
    return f"WRONG: the dense model can be exported, this one not: {why}"


def _short(error: Exception) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [x.strip() for x in str(cause).splitlines() if x.strip()]
    return (lines[0] if lines else type(cause).__name__)[:90].replace("|", "/")
