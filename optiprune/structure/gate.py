"""Whether a smaller model computes what the masked one computes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

__all__ = ["Compared", "GateError", "compare", "variations"]

# relative error that float32 may have
TOLERANCE = 1e-5
# above this it is no rounding, whatever the depth of the model
_ROUNDING = 1e-3


class GateError(RuntimeError):
    """The smaller model is not the masked one: nothing was changed."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One input on which both models ran.

    Attributes
    ----------
    shapes : of the input's tensors
    error : largest difference of an output element, over the largest magnitude of an output
    in_double : whether both ran in float64, as rounding in float32 was above the tolerance
    """

    shapes: tuple[tuple[int, ...], ...]
    error: float
    in_double: bool = False


def variations(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """The inputs themselves, twice the batch, and another size of images or sequences."""
    given = (args, dict(kwargs))
    return [given, tree_map_only(Tensor, _twice, given), tree_map_only(Tensor, _resized, given)]


def _twice(t: Tensor) -> Tensor:
    return torch.cat([t, t.flip(0)]) if t.ndim else t


def _resized(t: Tensor) -> Tensor:
    if t.ndim >= 4:  # an image: larger by an eighth, in steps of 32 where it is large
        for dim in range(2, t.ndim):
            more = 32 if t.shape[dim] % 32 == 0 else max(1, t.shape[dim] // 8)
            t = torch.cat([t, t.narrow(dim, 0, min(more, t.shape[dim]))], dim)
        return t
    if t.ndim >= 2 and not t.is_floating_point():  # tokens
        return t[:, : max(1, t.shape[1] // 2)]
    return t


def leaves(value: Any) -> list[Tensor]:
    """Tensors of a model's output, in order: of mappings, sequences and dataclasses."""
    if isinstance(value, Tensor):
        return [value]
    if is_dataclass(value) and not isinstance(value, Mapping | type):
        return [t for f in fields(value) for t in leaves(getattr(value, f.name))]
    if isinstance(value, Mapping):
        return [t for v in value.values() for t in leaves(v)]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [t for v in value for t in leaves(v)]
    return []


def compare(
    masked: nn.Module,
    smaller: nn.Module,
    inputs: Sequence[tuple[tuple[Any, ...], Mapping[str, Any]]],
    tolerance: float = TOLERANCE,
    names: tuple[str, str] = ("masked one", "smaller model"),
    *,
    rounding: bool = False,
) -> list[Compared]:
    """Run both in eval mode on every input that the masked model accepts.

    ``names`` are what the two are called in errors. With ``rounding`` a difference a little above
    the tolerance is looked at again in float64: sums of another length round differently, and a
    deep model can amplify that. There it has to be within the tolerance: an error that is none of
    rounding stays as large as it was, while models that normalise in float32 whatever they are
    given keep a little.

    Raises
    ------
    GateError
        There is nothing to compare; the smaller model fails on an input, its outputs have other
        shapes, or differ by more than ``tolerance``.
    """
    first, second = names
    out = []
    with torch.no_grad():
        for number, (args, kwargs) in enumerate(inputs):
            shapes = tuple(tuple(t.shape) for t in leaves([list(args), dict(kwargs)]))
            try:
                want = leaves(masked(*args, **kwargs))
            except Exception:
                if number == 0:
                    raise
                continue  # a size that the model was not made for
            if not any(t.is_floating_point() for t in want):
                raise GateError("the model returns no tensor of floats that could be compared")
            try:
                got = leaves(smaller(*args, **kwargs))
            except Exception as error:
                raise GateError(f"the {second} fails on inputs {shapes}: {error}") from error
            if [t.shape for t in want] != [t.shape for t in got]:
                raise GateError(
                    f"on inputs {shapes} the outputs have shapes {[tuple(t.shape) for t in got]}, "
                    f"not {[tuple(t.shape) for t in want]}"
                )
            worst = _difference(want, got)
            note = ""
            if rounding and tolerance < worst <= _ROUNDING:
                exact = _in_double(masked, smaller, args, kwargs)
                if exact <= tolerance:
                    out.append(Compared(shapes, exact, in_double=True))
                    continue
                note = f", {exact:.1e} in float64"
            if worst > tolerance:
                raise GateError(
                    f"on inputs {shapes} the {second} differs from the {first} by "
                    f"{worst:.1e} of the largest output{note}; {tolerance:.0e} is allowed"
                )
            out.append(Compared(shapes, worst))
    return out


def _difference(want: Sequence[Tensor], got: Sequence[Tensor]) -> float:
    worst = 0.0
    for a, b in zip(want, got, strict=True):
        if not a.is_floating_point():
            continue
        scale = float(a.abs().max()) if a.numel() else 0.0
        difference = float((a - b).abs().max()) if a.numel() else 0.0
        off = difference / scale if scale else difference
        worst = max(worst, off if off == off else float("inf"))
    return worst


def _in_double(
    masked: nn.Module, smaller: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> float:
    """The difference of copies in float64; infinite where the program fixes another type."""
    args, kwargs = tree_map_only(Tensor, _doubled, (args, dict(kwargs)))
    try:
        want, got = (leaves(copy.deepcopy(m).double()(*args, **kwargs)) for m in (masked, smaller))
    except RuntimeError:
        return float("inf")
    return _difference(want, got)


def _doubled(t: Tensor) -> Tensor:
    return t.double() if t.is_floating_point() else t
