"""Which modules make, carry and read channels in a way that is known, and how they are named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

__all__ = ["Holder", "channel_axis", "find_holders", "out_channels"]

# forwards that a known kind must have as torch wrote them
_FORWARDS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: ("forward",),
    nn.Conv2d: ("forward", "_conv_forward"),
    _BatchNorm: ("forward",),
    _InstanceNorm: ("forward",),
    nn.PReLU: ("forward",),
}


@dataclass(frozen=True, slots=True)
class Holder:
    """A module with parameters or buffers of its own.

    Attributes
    ----------
    name : in ``model.named_modules()``
    mixes : it makes new channels out of those it reads: Linear, or Conv2d of one group
    carries : it treats each channel by itself, with parameters and buffers of its own for each:
        depthwise Conv2d, batch and instance normalisation, PReLU
    fault : why its parameters must stay in their order; None if nothing speaks against it
    """

    name: str
    module: nn.Module
    mixes: bool
    carries: bool
    fault: str | None


def find_holders(model: nn.Module) -> list[Holder]:
    """The modules that own parameters or buffers, in the order of ``named_modules``."""
    owners = _owners(model)
    holders = []
    for name, module in model.named_modules():
        if not (_own_tensors(module) or getattr(module, "parametrizations", None)):
            continue
        kind = next((k for k in _FORWARDS if isinstance(module, k)), None)
        conv = module if isinstance(module, nn.Conv2d) else None
        depthwise = conv is not None and conv.groups == conv.in_channels == conv.out_channels > 1
        mixes = isinstance(module, nn.Linear) or (conv is not None and conv.groups == 1)
        carries = depthwise or (kind is not None and not mixes and conv is None)
        fault = _fault(name, module, kind, mixes or carries, owners)
        holders.append(Holder(name, module, mixes, carries, fault))
    return holders


def channel_axis(module: nn.Module) -> int:
    """Dimension of a known module's input and output that counts the channels."""
    if isinstance(module, nn.Linear):
        return -1
    return -3 if isinstance(module, nn.Conv2d) else 1


def out_channels(module: nn.Module) -> int:
    """Output channels of a Linear or Conv2d."""
    count = module.out_features if isinstance(module, nn.Linear) else module.out_channels
    assert isinstance(count, int)
    return count


def _fault(
    name: str,
    module: nn.Module,
    kind: type[nn.Module] | None,
    known: bool,
    owners: Mapping[int, list[str]],
) -> str | None:
    what = f"'{name}' ({type(module).__name__})"
    if kind is None:
        return f"{what} is of a kind through which channels cannot be followed"
    if not known:
        return f"{what} is a grouped convolution"
    if getattr(module, "parametrizations", None) or "weight" not in module._parameters:
        return f"{what} is reparametrised"
    for part in _FORWARDS[kind]:
        if getattr(getattr(module, part), "__func__", None) is not getattr(kind, part):
            return f"{what} has a {part} of its own"
    for own in _own_tensors(module).values():
        others = [n for n in owners[own.data_ptr()] if n != name]
        if own.numel() and others:
            return f"{what} shares its parameters with '{others[0]}'"
    return None


def _own_tensors(module: nn.Module) -> dict[str, Tensor]:
    own = [*module._parameters.items(), *module._buffers.items()]
    return {k: t for k, t in own if t is not None}


def _owners(model: nn.Module) -> dict[int, list[str]]:
    """Address of a tensor -> modules that hold it, views that begin there too."""
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for t in _own_tensors(module).values():
            owners.setdefault(t.data_ptr(), []).append(name)
    return owners
