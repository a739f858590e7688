"""Where a layer's output channels arrive: a NaN is put into a few of them and looked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from optiprune.curvature.capture import RunEndedError
from optiprune.curvature.data import Tree, tree_leaves, tree_map
from optiprune.curvature.runner import run_model, untouched

from .members import Holder, channel_axis, out_channels

__all__ = ["Arrivals", "follow", "holders_that_run"]


@dataclass(slots=True)
class Arrivals:
    """Where the output channels of one layer arrive.

    Attributes
    ----------
    producer : name of the layer
    channels : its output channels
    consumers : layer -> columns of its input that each channel owns
    carriers : module -> entries of its parameters that each channel owns
    fault : the first thing met that forbids another order of the channels; None if there is none
    stopped_at : the module that is the fault; what comes behind it was not looked at
    """

    producer: str
    channels: int
    consumers: dict[str, int] = field(default_factory=dict)
    carriers: dict[str, int] = field(default_factory=dict)
    fault: str | None = None
    stopped_at: str | None = None


def holders_that_run(model: nn.Module, holders: Sequence[Holder], inputs: Tree) -> list[Holder]:
    """Those that are called on these inputs; to be called more than once is a fault."""
    calls: Counter[str] = Counter()

    def count(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            calls[name] += 1

        return hook

    with ExitStack() as hooks:
        for h in holders:
            hooks.enter_context(h.module.register_forward_pre_hook(count(h.name)))
        _run(model, inputs)
    return [
        h
        if calls[h.name] == 1
        else replace(h, fault=h.fault or f"'{h.name}' is called {calls[h.name]} times in one pass")
        for h in holders
        if calls[h.name]
    ]


def follow(
    model: nn.Module, producer: Holder, holders: Mapping[str, Holder], inputs: Tree
) -> Arrivals:
    """Put NaN into the first channel, one after a third of them, and the last (of less than four
    channels into the first), and see where it arrives.

    Layers that read the channels one by one get their input without the NaN, so that whatever still
    holds one afterwards was reached past them. What three channels cannot tell (heads of
    attention), and kernels that swallow NaN (torch's fused attention on a CPU), show when the
    channels are reordered.

    Parameters
    ----------
    producer : a Linear or Conv2d that runs and has two output channels or more
    holders : by name, those that run
    inputs : of the model, a sample or two
    """
    channels = out_channels(producer.module)
    marked = torch.zeros(channels, dtype=torch.bool)
    marked[[0, channels // 3, channels - 1] if channels > 3 else [0]] = True
    found = Arrivals(producer.name, channels, fault=producer.fault)
    axis = channel_axis(producer.module)

    def inject(module: nn.Module, args: object, output: Tensor) -> Tensor:
        shape = [1] * output.ndim
        shape[axis] = -1
        return output.masked_fill(marked.to(output.device).reshape(shape), float("nan"))

    def arrive(holder: Holder) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if not _holds_nan((args, kwargs)):
                return None
            run = _run_of(holder, args[0] if args else kwargs.get("input"), marked)
            if holder.fault is not None or run is None:
                mixed = (
                    f"channels of '{producer.name}' arrive at '{holder.name}' mixed or elsewhere"
                )
                found.fault = found.fault or holder.fault or mixed
                found.stopped_at = holder.name
                raise RunEndedError
            if holder.carries:
                found.carriers[holder.name] = run
                return None
            found.consumers[holder.name] = run
            return tree_map(lambda t: torch.where(torch.isnan(t), 0, t), (args, kwargs))

        return hook

    with ExitStack() as hooks:
        hooks.enter_context(producer.module.register_forward_hook(inject))
        for h in holders.values():
            hook = h.module.register_forward_pre_hook(arrive(h), with_kwargs=True)
            hooks.enter_context(hook)
        try:
            output = _run(model, inputs)
        except RunEndedError:
            return found
        except Exception as e:  # a model may look at its activations and refuse a NaN
            raised = f"with NaN in channels of '{producer.name}' the model raised"
            found.fault = found.fault or f"{raised} {type(e).__name__}: {e}"
            return found
    if _holds_nan(output):
        found.fault = found.fault or f"channels of '{producer.name}' reach the model's output"
    return found


def _run_of(holder: Holder, x: Any, marked: Tensor) -> int | None:
    """Consecutive entries of the module's input that each channel owns; None if the NaN stand
    anywhere else."""
    axis = channel_axis(holder.module)
    if not isinstance(x, Tensor) or x.ndim < max(-axis, axis + 1) or x.shape[axis] % len(marked):
        return None
    seen = torch.isnan(x).movedim(axis, 0).flatten(1).any(1).cpu()
    run = len(seen) // len(marked)
    return run if torch.equal(seen, marked.repeat_interleave(run)) else None


def _holds_nan(tree: Tree) -> bool:
    return any(t.is_floating_point() and bool(torch.isnan(t).any()) for t in tree_leaves(tree))


def _run(model: nn.Module, inputs: Tree) -> Any:
    with torch.no_grad(), untouched(model):
        return run_model(model, {}, inputs)
