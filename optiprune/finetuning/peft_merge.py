"""Adapters of the ``peft`` package merged into a sparse model, with what the masks cut off told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from optiprune.masks import MaskError, MaskSet
from optiprune.masks.binding import bind

from .errors import FineTuningError, missing_extra

__all__ = ["PeftMerge", "merge_peft"]


@dataclass(frozen=True, slots=True, eq=False)
class PeftMerge:
    """A merged model.

    Attributes
    ----------
    model : the base model, its own class again, every mask on it
    lost : of each masked parameter that the adapters changed, the part of the change that fell on
        pruned weights and was left out: its norm over the norm of the whole change, 0 to 1
    """

    model: nn.Module
    lost: Mapping[str, float]


def merge_peft(model: Any, masks: Mapping[str, Tensor], *, accept_loss: float = 0.0) -> PeftMerge:
    """Merge the active adapters of a peft model into its sparse base, and put the masks back on.

    Adapters that were trained without a mask change pruned weights as well. Merging alone would
    give a dense model, and masking afterwards gives another one than was trained: by default both
    are refused, with the share of the change that would be lost. `add_lora` trains adapters that
    lose nothing. If the loss is accepted, measure the model again, and train it on for some steps
    (`MaskSet.keep`): about the square root of the share of pruned weights is lost.

    Parameters
    ----------
    model : a ``peft.PeftModel``; what it wraps is changed in place
    masks : by the names of the base model
    accept_loss : the largest share that may be lost in any parameter, 0 to 1

    Raises
    ------
    ImportError
        The package is missing.
    FineTuningError
        No peft model, adapters that cannot be merged (prompts), merged weights that are not finite,
        or more is lost than was accepted; adapters and base are as they were then.
    MaskError
        The masks do not fit the base model or are not on it.
    """
    try:
        from peft import PeftModel
    except ImportError as e:
        raise missing_extra("merge_peft", "transformers", e) from e
    if not 0 <= accept_loss <= 1:
        raise FineTuningError(f"accept_loss must be from 0 to 1, got {accept_loss!r}")
    if not isinstance(model, PeftModel):
        raise FineTuningError(f"expected a peft.PeftModel, got a {type(model).__name__}")
    tuner: Any = model.base_model
    if not hasattr(tuner, "merge_adapter") or not hasattr(tuner, "unload"):
        raise FineTuningError(f"adapters of {type(tuner).__name__} cannot be merged into weights")
    base = model.get_base_model()
    weights = _base_weights(base, masks)
    missing = [n for n in masks if n not in weights]
    if missing:
        raise MaskError(f"{type(base).__name__} has no parameter {missing[0]!r}")
    bound = bind(_Named(weights), {_key(n): m for n, m in masks.items()})
    before = {b.name: b.parameter.detach().clone() for b in bound}
    for b in bound:
        if bool(before[b.name][~b.mask.to(b.parameter.device)].any()):
            raise FineTuningError(
                f"the base weight {_name(b.name)!r} is not zero where pruned; the adapters were "
                "not trained on the sparse model, or are merged into it already"
            )
    tuner.merge_adapter(safe_merge=False)
    try:
        lost = {}
        for b in bound:
            change = b.parameter.detach().double() - before[b.name].double()
            whole = float(change.norm())
            if not math.isfinite(whole):
                raise FineTuningError(f"merged, {_name(b.name)!r} holds NaN or infinity")
            if whole:
                pruned = ~b.mask.to(b.parameter.device)
                lost[_name(b.name)] = float(change[pruned].norm()) / whole
        worst = max(lost, key=lost.__getitem__, default=None)
        if worst is not None and lost[worst] > accept_loss:
            raise FineTuningError(
                f"merging loses up to {lost[worst]:.0%} of what the adapters learned (in "
                f"{worst!r}; accepted is {accept_loss:.0%}): that part is on pruned weights. Train "
                "with optiprune.finetuning.add_lora, which loses nothing, or pass accept_loss="
                f"{math.ceil(100 * lost[worst]) / 100} and measure the model again"
            )
    except BaseException:
        tuner.unmerge_adapter()
        with torch.no_grad():
            for b in bound:  # what was subtracted again is rounded
                b.parameter.copy_(before[b.name])
        raise
    del before
    merged = tuner.unload()
    MaskSet(masks).apply(merged, {}).make_permanent()
    return PeftMerge(merged, lost)


class _Named(nn.Module):
    """Parameters as a flat module, for `bind`, whose names hold no dot."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        for name, p in parameters.items():
            self.register_parameter(_key(name), p)


def _key(name: str) -> str:
    return name.replace(".", "/")


def _name(key: str) -> str:
    return key.replace("/", ".")


def _base_weights(base: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, nn.Parameter]:
    """The base model's parameters by the names that they have without adapters."""
    found = {}
    for name, p in base.named_parameters(remove_duplicate=False):
        plain = name.replace(".base_layer.", ".").removeprefix("base_layer.")
        if plain in masks or not any(part.startswith("lora_") for part in name.split(".")):
            found[plain] = p
    return found
