"""Find the parameters that masks are for, and refuse every model that they do not fit."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from .errors import MaskError

__all__ = ["Bound", "all_parameters", "bind", "describe_nonfinite"]


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    """One parameter of a model and the mask for it.

    Attributes
    ----------
    name : first of the mask set's names for it
    listed : all of the mask set's names for it (several when tied weights are listed twice)
    aliases : all of the model's names for it, listed or not
    parameter : the one tensor behind those names
    twins : every `nn.Parameter` object on that memory (``parameter`` alone, but for odd models)
    mask : bool, the parameter's shape, on the device of the mask set
    """

    name: str
    listed: tuple[str, ...]
    aliases: tuple[str, ...]
    parameter: nn.Parameter
    twins: tuple[nn.Parameter, ...]
    mask: Tensor


def all_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter under every name that it has, tied ones repeated."""
    return dict(model.named_parameters(remove_duplicate=False))


def bind(
    model: nn.Module, masks: Mapping[str, Tensor], *, check_finite: bool = True
) -> list[Bound]:
    """Match masks with the parameters of a model; tied parameters come out once.

    Nothing is written. Parameters that share their memory with the same layout count as tied, as
    the same `nn.Parameter` under two names does.

    Raises
    ------
    MaskError
        A parameter is missing (the nearest name is suggested), has another shape, no data (meta
        device) or no floating dtype, holds NaN or infinity, or is tied to another one that has a
        different mask.
    """
    parameters = all_parameters(model)
    aliases: dict[object, list[str]] = {}
    for name, parameter in parameters.items():
        aliases.setdefault(_identity(parameter), []).append(name)
    listed: dict[object, list[str]] = {}
    for name, mask in masks.items():
        if name not in parameters:
            raise MaskError(_missing(model, name, parameters))
        parameter = parameters[name]
        _check_kind(name, parameter, mask, check_finite)
        listed.setdefault(_identity(parameter), []).append(name)
    out = []
    for key, names in listed.items():
        first = masks[names[0]]
        for other in names[1:]:
            if not torch.equal(first.cpu(), masks[other].cpu()):
                differ = int((first.cpu() != masks[other].cpu()).sum())
                raise MaskError(
                    f"parameters {names[0]!r} and {other!r} are tied (one tensor), but their masks "
                    f"differ at {differ} of {first.numel()} weights; give one mask for both"
                )
        twins = tuple({id(parameters[name]): parameters[name] for name in aliases[key]}.values())
        parameter = parameters[names[0]]
        out.append(Bound(names[0], tuple(names), tuple(aliases[key]), parameter, twins, first))
    _refuse_overlap(out)
    return out


def describe_nonfinite(t: Tensor) -> str:
    """ "2 NaN and 0 infinite of 100 values, the first at index (0, 3)"."""
    bad = ~torch.isfinite(t)
    first = tuple(int(i) for i in bad.nonzero()[0])
    nan = int(torch.isnan(t).sum())
    return (
        f"{nan} NaN and {int(bad.sum()) - nan} infinite of {t.numel()} values, "
        f"the first at index {first}"
    )


def _identity(parameter: nn.Parameter) -> object:
    if parameter.is_meta or parameter.numel() == 0:
        return id(parameter)
    return (
        str(parameter.device),
        parameter.data_ptr(),
        parameter.dtype,
        tuple(parameter.shape),
        parameter.stride(),
    )


def _check_kind(name: str, parameter: nn.Parameter, mask: Tensor, check_finite: bool) -> None:
    if parameter.shape != mask.shape:
        raise MaskError(
            f"parameter {name!r} has shape {tuple(parameter.shape)}, "
            f"its mask has {tuple(mask.shape)}"
        )
    if parameter.is_meta:
        raise MaskError(
            f"parameter {name!r} is on the meta device and holds no data; "
            "load the weights before masking"
        )
    if not parameter.is_floating_point():
        raise MaskError(
            f"parameter {name!r} has dtype {parameter.dtype}; only floating-point parameters "
            "can be masked"
        )
    if check_finite and not bool(torch.isfinite(parameter.detach()).all()):
        raise MaskError(
            f"parameter {name!r} holds {describe_nonfinite(parameter.detach())}; "
            "repair the checkpoint before masking"
        )


def _missing(model: nn.Module, name: str, parameters: Mapping[str, nn.Parameter]) -> str:
    if f"{name}_orig" in parameters:
        return (
            f"parameter {name!r} is reparametrised by torch.nn.utils.prune "
            f"({name}_orig and {name}_mask); read it with MaskSet.from_prune, "
            "or undo it with remove_prune, first"
        )
    head, _, tail = name.rpartition(".")
    stem = f"{head}.parametrizations.{tail}.original".removeprefix(".")
    if any(n.startswith(stem) for n in parameters):
        return (
            f"parameter {name!r} is computed by torch.nn.utils.parametrize; "
            "call remove_parametrizations on it first"
        )
    close = difflib.get_close_matches(name, parameters, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{type(model).__name__} has no parameter {name!r}{hint}"


def _refuse_overlap(bound: list[Bound]) -> None:
    """Two masks for one piece of memory in two layouts (a weight and its transpose, say) would
    both be applied to it, so neither would come out right."""
    extents: dict[tuple[str, int], list[tuple[int, int, str]]] = {}
    for b in bound:
        p = b.parameter
        if p.numel():
            reach = int(sum((s - 1) * d for s, d in zip(p.shape, p.stride(), strict=True))) + 1
            start = int(p.storage_offset()) * p.element_size()
            storage = (str(p.device), p.untyped_storage().data_ptr())
            extents.setdefault(storage, []).append(
                (start, start + reach * p.element_size(), b.name)
            )
    for spans in extents.values():
        spans.sort()
        for (_, end, one), (start, _, two) in pairwise(spans):
            if start < end:
                raise MaskError(
                    f"parameters {one!r} and {two!r} share memory in different layouts; "
                    "mask only one of them"
                )
