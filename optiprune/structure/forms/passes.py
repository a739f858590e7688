"""Passes over a model that put another form of a convolution where it is wanted or faster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from optiprune.structure.gate import TOLERANCE
from optiprune.structure.timing import Measure, alternated
from optiprune.structure.trace import TraceError

from .candidates import FormError, Seen
from .compact import compact_forms
from .convert import Converted, FormRecord, convert
from .grouped import dense_kernel
from .resizes import resizes_in_code
from .upsampling import ByChannels, transposed_upsample

__all__ = ["compacted", "densified", "without_resize"]

_COMPACT = "without rows and columns of zeros"
_DENSE = "dense kernel"
_TRANSPOSED = "transposed convolution"


def compacted(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    threshold: float = 0.95,
    repeats: int = 20,
    tolerance: float = TOLERANCE,
    measure: Measure | None = None,
) -> Converted:
    """A copy of a model whose layers skip their rows and columns of zeros where that is faster.

    For channels that have to stay because an addition or a product meets another branch that has
    them: the layer reads the channels that it uses, and puts those that it makes among its biases.
    `remove_dead` comes first: it takes away what no branch needs. Every form has fewer parameters.

    Parameters
    ----------
    model, args, kwargs, threshold, repeats, tolerance, measure : as for `densified`

    Raises
    ------
    GateError
        The copy does not compute what the model computes. Both run in eval mode.
    ValueError
        ``threshold`` is not above 0.
    """
    timed = partial(alternated, repeats=repeats) if measure is None else measure

    def form(layer: nn.Module, seen: Sequence[Seen]) -> nn.Module:
        return compact_forms(layer, seen, timed)

    return convert(
        model,
        args,
        kwargs or {},
        wanted=lambda m: isinstance(m, nn.Linear | _ConvNd),
        name=_COMPACT,
        form=form,
        threshold=threshold,
        tolerance=tolerance,
        repeats=repeats,
        measure=measure,
    )


def densified(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    threshold: float = 0.95,
    repeats: int = 20,
    tolerance: float = TOLERANCE,
    measure: Measure | None = None,
) -> Converted:
    """A copy of a model in which grouped convolutions are dense where that is faster here.

    Each is measured on tensors of the shapes, strides and dtypes that it reads when the model runs
    on the inputs given, with the threads and the device that it has now. See `dense_kernel`.

    Parameters
    ----------
    model : is left as it was
    args, kwargs : what it is called with; both models are compared on these, on twice the batch,
        and on another size where the model takes one
    threshold : replaced where the dense form takes at most this share of the time; above 0
    repeats : measurements of each form, taken in turns
    tolerance : largest difference of an output, relative to the largest output
    measure : times two computations instead of `alternated`

    Raises
    ------
    GateError
        The copy does not compute what the model computes. Both run in eval mode.
    ValueError
        ``threshold`` is not above 0.
    """

    def form(conv: nn.Module, seen: Sequence[Seen]) -> nn.Module:
        assert isinstance(conv, _ConvNd)
        return dense_kernel(conv)

    return convert(
        model,
        args,
        kwargs or {},
        wanted=lambda m: isinstance(m, _ConvNd) and m.groups > 1,
        name=_DENSE,
        form=form,
        threshold=threshold,
        tolerance=tolerance,
        repeats=repeats,
        measure=measure,
    )


def without_resize(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    only_if_faster: bool = False,
    threshold: float = 0.95,
    repeats: int = 20,
    tolerance: float = TOLERANCE,
    measure: Measure | None = None,
) -> Converted:
    """A copy of a model whose ``nn.Upsample`` modules are transposed convolutions.

    For exporters and accelerators without a resize operator, so that it is done also where it is
    slower; the records tell how much. See `transposed_upsample` for which have such a form: the
    numbers of channels are those seen when the model runs on the inputs given. Calls of
    ``nn.functional.interpolate`` in the model's code are no modules; they stay, and have a record
    with the line each.

    Parameters
    ----------
    model : is left as it was
    args, kwargs : what it is called with; both models are compared on these, on twice the batch,
        and on another size where the model takes one
    only_if_faster : replace only where the form takes at most ``threshold`` of the time
    repeats : measurements of each form, taken in turns
    tolerance : largest difference of an output, relative to the largest output; torch's own
        rounding in float32 can be above the default, see `transposed_upsample`
    measure : times two computations instead of `alternated`

    Raises
    ------
    GateError
        The copy does not compute what the model computes. Both run in eval mode.
    ValueError
        ``threshold`` is not above 0.
    """
    kwargs = kwargs or {}
    done = convert(
        model,
        args,
        kwargs,
        wanted=lambda m: isinstance(m, nn.Upsample),
        name=_TRANSPOSED,
        form=_upsampled,
        threshold=threshold if only_if_faster else None,
        tolerance=tolerance,
        repeats=repeats,
        measure=measure,
    )
    return Converted(done.model, (*done.records, *_left(done.model, args, kwargs)), done.compared)


def _upsampled(upsample: nn.Module, seen: Sequence[Seen]) -> nn.Module:
    assert isinstance(upsample, nn.Upsample)
    kinds = {(s.meta.ndim - 2, s.meta.dtype, s.device) for s in seen}
    if len(kinds) > 1:
        raise FormError("it reads tensors of several ranks, dtypes or devices")
    ((dims, dtype, device),) = kinds
    forms = {
        channels: transposed_upsample(upsample, channels, dims, dtype=dtype, device=device)
        for channels in sorted({s.meta.shape[1] for s in seen})
    }
    return next(iter(forms.values())) if len(forms) == 1 else ByChannels(forms)


def _left(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[FormRecord, ...]:
    """Records of the resizes that the model's code calls itself."""
    try:
        places = resizes_in_code(model, args, kwargs)
    except TraceError as error:
        why = f"whether its code resizes is not known: {error}"
        return (FormRecord("", _TRANSPOSED, None, None, False, why),)
    return tuple(
        FormRecord(
            p.module,
            _TRANSPOSED,
            None,
            None,
            False,
            f"{p.operation} at {p.line or 'an unknown line'} is {p.reason}, no nn.Upsample of the "
            "model",
        )
        for p in places
    )
