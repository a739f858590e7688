"""Whole blocks that a model can do without: modules of a list that hand on a tensor of one shape.

A block adds to what it is given: out = x + f(x). Without it the next module is called with x. The
masked model runs the block and hands on x all the same; the smaller one has a shorter list.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .gate import Compared, compare, variations
from .modes import evaluating
from .plan import PlanError

__all__ = ["Block", "WithoutBlocks", "find_blocks", "remove_blocks", "skipped"]


@dataclass(frozen=True, slots=True)
class Block:
    """Attributes: name of the module, of its list, its place there, and its parameters."""

    name: str
    container: str
    index: int
    parameters: int


@dataclass(frozen=True, slots=True, eq=False)
class WithoutBlocks:
    """What `remove_blocks` returns; parameters count tied ones once."""

    model: nn.Module
    removed: tuple[str, ...]
    compared: tuple[Compared, ...]
    parameters_before: int
    parameters_after: int


def find_blocks(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> tuple[Block, ...]:
    """Modules of a `ModuleList` or `Sequential` that run once and keep the shape of their input.

    Only modules with parameters, of lists of two such modules or more, and none inside another.
    """
    found: dict[str, list[bool]] = {}
    names = _candidates(model)
    handles = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, a: Any, k: Any, out: Any) -> None:
            x, y = given(a, k), handed_on(out)
            same = x is not None and y is not None and x.shape == y.shape and x.dtype == y.dtype
            found.setdefault(name, []).append(same)

        return hook

    for name in names:
        module = model.get_submodule(name)
        handles.append(module.register_forward_hook(watch(name), with_kwargs=True))
    try:
        with evaluating(model), torch.no_grad():
            model(*args, **(kwargs or {}))
    finally:
        for handle in handles:
            handle.remove()
    good = [n for n in names if found.get(n) == [True]]
    lists = [n.rpartition(".")[0] for n in good]
    several = [n for n, within in zip(good, lists, strict=True) if lists.count(within) > 1]
    out = []
    for name in several:
        if not any(name.startswith(f"{outer}.") for outer in several):
            container, _, index = name.rpartition(".")
            size = sum(p.numel() for p in model.get_submodule(name).parameters())
            out.append(Block(name, container, int(index), size))
    return tuple(out)


def _candidates(model: nn.Module) -> list[str]:
    out = []
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList | nn.Sequential):
            for index, child in enumerate(module):
                if next(child.parameters(), None) is not None and any(
                    True for _ in child.children()
                ):
                    out.append(f"{name}.{index}" if name else str(index))
    return out


def given(args: Any, kwargs: Mapping[str, Any]) -> Tensor | None:
    """The tensor that a block is called with: the first one."""
    return next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)), None)


def handed_on(output: Any) -> Tensor | None:
    """The tensor that a block hands on: its output, or the first of a tuple."""
    if isinstance(output, tuple | list) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


def skipped(model: nn.Module, names: Sequence[str]) -> list[RemovableHandle]:
    """From now on these blocks hand on what they are given, until the handles are removed."""

    def hook(module: nn.Module, args: Any, kwargs: Any, out: Any) -> Any:
        x = given(args, kwargs)
        if isinstance(out, tuple):
            return (x, *out[1:])
        return [x, *out[1:]] if isinstance(out, list) else x

    return [
        model.get_submodule(name).register_forward_hook(hook, with_kwargs=True) for name in names
    ]


def remove_blocks(
    model: nn.Module,
    names: Sequence[str],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    blocks: Sequence[Block] | None = None,
) -> WithoutBlocks:
    """A copy of the model without these blocks, compared with one that skips them.

    Numbers called ``layer_idx`` in what is left follow the places in the list, and those of a
    config that repeat its length (``num_hidden_layers``, ``layer_types``) follow its new length.

    Raises
    ------
    PlanError
        A name is no block, or none of a list would be left.
    GateError
        The copy fails, or does not compute what the model computes that skips them.
    """
    kwargs = kwargs or {}
    known = {b.name: b for b in (find_blocks(model, args, kwargs) if blocks is None else blocks)}
    gone: dict[str, list[int]] = {}
    for name in dict.fromkeys(names):
        if name not in known:
            raise PlanError(f"{name!r} is no block; there are {', '.join(known) or 'none'}")
        gone.setdefault(known[name].container, []).append(known[name].index)
    masked = copy.deepcopy(model).eval()
    skipped(masked, names)
    smaller = copy.deepcopy(model).eval()
    for container, indices in gone.items():
        _shorten(smaller, container, indices)
    compared = compare(masked, smaller, variations(args, kwargs))
    for m in smaller.modules():
        m.training = model.training
    sizes = [sum(p.numel() for p in m.parameters()) for m in (model, smaller)]
    return WithoutBlocks(smaller, tuple(dict.fromkeys(names)), tuple(compared), *sizes)


def _shorten(model: nn.Module, container: str, gone: Sequence[int]) -> None:
    within = model.get_submodule(container)
    assert isinstance(within, nn.ModuleList | nn.Sequential)
    before = len(within)
    stays = [i for i in range(before) if i not in set(gone)]
    if not stays:
        raise PlanError(f"all {before} blocks of {container!r} would leave: one must stay")
    left = [within[i] for i in stays]
    del within[:]
    for new, module in enumerate(left):
        within.append(module)
        for part in module.modules():
            if getattr(part, "layer_idx", None) == stays[new]:
                part.layer_idx = new  # type: ignore[assignment]
    seen: set[int] = set()
    for module in model.modules():
        config: Any = getattr(module, "config", None)
        if config is None or id(config) in seen or isinstance(config, Tensor | nn.Module):
            continue
        seen.add(id(config))
        if getattr(config, "num_hidden_layers", None) == before:
            config.num_hidden_layers = len(stays)
            types = getattr(config, "layer_types", None)
            if isinstance(types, list) and len(types) == before:
                config.layer_types = [types[i] for i in stays]
