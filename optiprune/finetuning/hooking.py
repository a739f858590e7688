"""`keep_masked` for a trainer that hands over whatever optimizers it made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn
from torch.optim import Optimizer

from optiprune.masks import KeepMasked, MaskError, keep_masked

__all__ = ["hook"]


def hook(
    model: nn.Module, masks: Mapping[str, Tensor], optimizers: Iterable[Optimizer], trainer: str
) -> KeepMasked:
    """Keep masks with those optimizers that train a masked parameter; others are left alone.

    Raises
    ------
    MaskError
        As `keep_masked`; or no optimizer trains a masked parameter, so that nothing is to be kept.
    """
    given = list(optimizers)
    named = dict(model.named_parameters(remove_duplicate=False))
    masked = {id(named[n]) for n in masks if n in named}
    chosen = [o for o in given if any(id(p) in masked for g in o.param_groups for p in g["params"])]
    if not chosen and masked:
        names = ", ".join(type(o).__name__ for o in given) or "none"
        raise MaskError(
            f"no optimizer of the {trainer} trains a masked parameter (its optimizers: {names}). "
            "Either they are all frozen, and the masks need no keeping, or parameters are sharded "
            "over devices (FSDP, DeepSpeed stage 3), which is not supported"
        )
    return keep_masked(model, masks, *(chosen or given))
