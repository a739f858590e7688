"""2:4 weights as torch's semi-structured tensors, which some GPUs multiply faster.

The compressed format of NVIDIA's sparse tensor cores (Mishra et al. 2021, "Accelerating sparse deep
neural networks", arXiv:2104.08378), through ``torch.sparse.to_sparse_semi_structured``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .masks import MaskError, MaskSet
from .masks.pattern import check_pattern

__all__ = ["Ineligible", "SemiStructuredError", "ineligible_layers", "to_semi_structured"]

# what both back ends of torch (cuSPARSELt and CUTLASS) take
_DTYPES = (torch.float16, torch.bfloat16)
_ROWS, _COLS = 32, 64
_CAPABILITY = (8, 0)


class SemiStructuredError(ValueError):
    """A weight that cannot be stored as a semi-structured tensor; the message says why."""


@dataclass(frozen=True, slots=True)
class Ineligible:
    """A masked parameter that cannot be converted, and why."""

    parameter: str
    reason: str


def ineligible_layers(
    model: nn.Module, masks: MaskSet, *, any_device: bool = False
) -> list[Ineligible]:
    """Masked parameters that `to_semi_structured` would refuse, in order; empty if none.

    Looked at: the module (only Linear), the mask (2:4, see `MaskSet.check_pattern`), the
    weights (zero where pruned), the shape, the dtype, and, unless ``any_device``, the device that
    the model is on now. Nothing is written.

    Raises
    ------
    MaskError
        A parameter that the model lacks or has in another shape.
    """
    masks.validate(model)
    modules = _owners(model)
    out = []
    for name, mask in masks.items():
        weight = model.get_parameter(name)
        reason = _reason(name, modules.get(name), weight, mask)
        if not reason and not any_device:
            reason = _wrong_device(weight.device)
        if reason:
            out.append(Ineligible(name, reason))
    return out


def to_semi_structured(model: nn.Module, masks: MaskSet, *, strict: bool = True) -> list[str]:
    """Replace 2:4 weights by semi-structured tensors, in place; the names converted.

    The weights must be masked already. A converted model is for inference: its weights take no
    gradient and are not to be saved as a plain state dict.

    Parameters
    ----------
    strict : raise if any masked parameter cannot be converted, before anything is written; False
        converts those that can be

    Raises
    ------
    SemiStructuredError
        With ``strict``, naming each parameter with its reason: a device that is not CUDA or older
        than compute capability 8.0, a dtype other than float16 and bfloat16, a shape that is no
        multiple of (32, 64), a layer other than Linear, a mask that is not 2:4, weights that are
        not zero where pruned.
    MaskError
        As `ineligible_layers`.
    """
    refused = ineligible_layers(model, masks)
    if refused and strict:
        lines = "; ".join(f"'{r.parameter}': {r.reason}" for r in refused)
        raise SemiStructuredError(
            f"{len(refused)} of {len(masks)} parameters cannot be semi-structured: {lines}. "
            "strict = False converts the others"
        )
    skip = {r.parameter for r in refused}
    modules = _owners(model)
    # all are made before the first is put in place: an error half way leaves the model as it was
    made = {
        name: torch.sparse.to_sparse_semi_structured(model.get_parameter(name).detach())
        for name in masks
        if name not in skip
    }
    for name, weight in made.items():
        modules[name].weight = nn.Parameter(weight, requires_grad=False)
    return list(made)


def _owners(model: nn.Module) -> Mapping[str, nn.Module]:
    """Parameter name -> the module that owns it as its weight."""
    return {f"{n}.weight" if n else "weight": module for n, module in model.named_modules()}


def _reason(name: str, module: nn.Module | None, weight: Tensor, mask: Tensor) -> str | None:
    """Why a parameter cannot be converted on any device; None if it can."""
    if not isinstance(module, nn.Linear):
        kind = "no module's weight" if module is None else type(module).__name__
        return f"{kind}, and only Linear weights can be"
    try:
        check_pattern({name: mask}, "2:4")
    except MaskError as e:
        return str(e)
    if bool(weight.detach()[~mask.to(weight.device)].any()):
        return "pruned weights are not zero; apply the masks first"
    rows, cols = weight.shape
    if rows % _ROWS or cols % _COLS:
        return f"shape {rows} x {cols} is no multiple of {_ROWS} x {_COLS}"
    if weight.dtype not in _DTYPES:
        return f"dtype {weight.dtype}; model.half() or model.bfloat16() first"
    return None


def _wrong_device(device: torch.device) -> str | None:
    if device.type != "cuda":
        return f"device '{device}'; a CUDA device of capability 8.0 or later is needed"
    capability = torch.cuda.get_device_capability(device)
    if capability < _CAPABILITY:
        return f"device '{device}' has capability {capability[0]}.{capability[1]}, below 8.0"
    return None
