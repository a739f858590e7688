"""Which modules another one may stand in for, and what they read on example inputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["FormError", "Seen", "inputs_seen", "require_plain", "swap"]


class FormError(ValueError):
    """A module has no such form; the message says why."""


def require_plain(module: nn.Module, kinds: Collection[type[nn.Module]]) -> None:
    """A module that does what its class says and no more.

    Raises
    ------
    FormError
        It is of a subclass, which may compute something else (a parametrized module is), or has
        hooks, which a new module would not run.
    """
    if type(module) not in kinds:
        names = ", ".join(sorted(k.__name__ for k in kinds))
        raise FormError(f"{type(module).__name__} is not one of {names}")
    hooks = [
        name
        for name in (
            "_forward_hooks",
            "_forward_pre_hooks",
            "_backward_hooks",
            "_backward_pre_hooks",
        )
        if getattr(module, name)
    ]
    if hooks:
        raise FormError("it has hooks, which another module would not run: remove them first")


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A tensor that a module read: shape, strides and dtype on the meta device, no values.

    Activations of a whole model would not fit where the model does.
    """

    meta: Tensor
    device: torch.device

    def ones(self) -> Tensor:
        """A tensor of this kind: how long a convolution takes does not depend on the values."""
        return torch.ones_like(self.meta, device=self.device)


def inputs_seen(
    model: nn.Module,
    modules: Collection[nn.Module],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> dict[nn.Module, list[Seen]]:
    """What each of some modules reads, call by call, when the model runs once as it is."""
    seen: dict[nn.Module, list[Seen]] = {m: [] for m in modules}

    def note(module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        x = positional[0] if positional else named["input"]
        seen[module].append(Seen(torch.empty_like(x, device="meta"), x.device))

    handles = [m.register_forward_pre_hook(note, with_kwargs=True) for m in modules]
    try:
        with torch.no_grad():
            model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def swap(model: nn.Module, new: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Put modules in place of others wherever these are registered, in place.

    Returns the model, or what stands for it if it is one of them itself.
    """
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is not None and child in new:
                parent._modules[name] = new[child]
    return new.get(model, model)
