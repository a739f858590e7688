"""Interchange with torch.nn.utils.prune: the ``<name>_orig`` and ``<name>_mask`` form.

In that form a module computes ``weight = weight_orig * weight_mask`` before every forward pass, so
the dense weights stay in the model and training cannot revive a pruned one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from .binding import Bound, bind
from .errors import MaskError

__all__ = ["add_reparametrisation", "read_masks", "remove_reparametrisation", "reparametrised"]


def reparametrised(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Parameters in prune form: (name such as "fc1.weight", its module, "weight")."""
    for path, module in model.named_modules(remove_duplicate=False):
        buffers = dict(module.named_buffers(recurse=False))
        for full, _ in module.named_parameters(recurse=False, remove_duplicate=False):
            attribute = full.removesuffix("_orig")
            if full.endswith("_orig") and f"{attribute}_mask" in buffers:
                yield (f"{path}.{attribute}" if path else attribute), module, attribute


def read_masks(model: nn.Module) -> dict[str, Tensor]:
    """The masks of a model in prune form, as bool tensors.

    Raises `MaskError` if the model has none, or one that holds anything but 0 and 1.
    """
    out = {}
    for name, module, attribute in reparametrised(model):
        mask: Tensor = getattr(module, f"{attribute}_mask")
        kept = mask != 0
        if not bool((mask[kept] == 1).all()):
            raise MaskError(f"{name}_mask holds values other than 0 and 1; it is not a mask")
        out[name] = kept
    if not out:
        raise MaskError(
            f"{type(model).__name__} holds no parameter pruned by torch.nn.utils.prune "
            "(none has both <name>_orig and <name>_mask)"
        )
    return out


def add_reparametrisation(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Bring parameters into prune form, all or none.

    Tied weights are brought into it under every name: torch's own functions replace one name only,
    and the other module would go on with the dense weights.
    """
    bound = bind(model, masks)
    done: set[tuple[int, str]] = set()
    finished: list[str] = []
    try:
        for b in bound:
            for name in b.aliases:
                module, attribute = owner(model, name)
                if (id(module), attribute) in done:  # one module under two names
                    continue
                done.add((id(module), attribute))
                prune.custom_from_mask(module, attribute, _mask_for(b))
                finished.append(name)
    except BaseException:
        remove_reparametrisation(model, finished, dense=True)
        raise


def remove_reparametrisation(
    model: nn.Module, names: Iterable[str] | None = None, *, dense: bool = False
) -> None:
    """Turn parameters in prune form back into plain ones, all of them or the named ones.

    The zeros stay (torch's `prune.remove`); with ``dense`` the weights of ``<name>_orig`` do.
    Raises `MaskError` for a named parameter that is not in prune form.
    """
    found: dict[str, tuple[nn.Module, str]] = {}
    for name, module, attribute in reparametrised(model):
        found[name] = (module, attribute)
    chosen = list(found) if names is None else list(names)
    for name in chosen:
        if name not in found:
            raise MaskError(
                f"parameter {name!r} is not pruned by torch.nn.utils.prune; "
                f"those that are: {', '.join(found) or 'none'}"
            )
    originals: dict[int, tuple[nn.Parameter, Tensor]] = {}
    if dense:
        for name in chosen:
            module, attribute = found[name]
            p = getattr(module, f"{attribute}_orig")
            originals[id(p)] = (p, p.detach().clone())
    done: set[tuple[int, str]] = set()
    for name in chosen:
        module, attribute = found[name]
        if (id(module), attribute) not in done:
            done.add((id(module), attribute))
            prune.remove(module, attribute)
    with torch.no_grad():
        for p, t in originals.values():
            # prune.remove keeps the Parameter object and gives it new memory
            p.copy_(t)


def owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds a parameter, and the parameter's name within it."""
    path, _, attribute = name.rpartition(".")
    return model.get_submodule(path), attribute


def _mask_for(b: Bound) -> Tensor:
    return b.mask.to(device=b.parameter.device, dtype=b.parameter.dtype)
