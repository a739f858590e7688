"""What is looked at before anything is exported: the masks are on the model, its numbers are."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from optiprune.masks.binding import Bound, bind, describe_nonfinite

from .errors import ExportError

__all__ = ["check_masked", "distinct_bytes", "identity"]


def check_masked(model: nn.Module, masks: Mapping[str, Tensor]) -> list[Bound]:
    """The masked parameters, tied ones once.

    Raises
    ------
    MaskError
        The masks are not this model's: a parameter is missing or has another shape.
    ExportError
        A pruned weight is not zero; a parameter, masked or not, holds NaN or infinity.
    """
    bound = bind(model, masks)
    for b in bound:
        p = b.parameter.detach()
        alive = int((p != 0).logical_and_(~b.mask.to(p.device)).sum())
        if alive:
            raise ExportError(
                f"parameter {b.name!r} is not zero at {alive} of {int((~b.mask).sum())} pruned "
                "weights: these are masks of another model, or they were not applied, or a "
                "training lost them. masks.apply(model) puts them on (and changes the outputs)"
            )
    for name, p in model.named_parameters():
        if p.is_meta:
            raise ExportError(f"parameter {name!r} is on the meta device and holds no data")
        if p.is_floating_point() and not bool(torch.isfinite(p.detach()).all()):
            raise ExportError(f"parameter {name!r} holds {describe_nonfinite(p.detach())}")
    return bound


def identity(t: Tensor) -> object:
    """Equal for tensors that are one piece of memory seen in one way."""
    if t.numel() == 0:
        return id(t)
    return str(t.device), t.data_ptr(), t.dtype, tuple(t.shape), t.stride()


def distinct_bytes(model: nn.Module) -> int:
    """Bytes of the tensors in the state dict, tied ones once: what a dense file needs."""
    seen = {identity(t): t.numel() * t.element_size() for t in model.state_dict().values()}
    return sum(seen.values())
