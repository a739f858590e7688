"""What each block of a model is called with, before any of them has run.

The arguments of a block beside the tensor that is handed on (masks, positions) depend on the shape
of the inputs alone, so one pass in which every block hands its input on unchanged shows them all;
blocks may differ in them (full and sliding attention).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from optiprune.curvature.capture import RunEndedError
from optiprune.curvature.chain import Call, call_of, first_tensor
from optiprune.curvature.data import Tree
from optiprune.curvature.inputs import arguments_of

from .errors import ModelDirectoryError
from .skeleton import Skeleton

__all__ = ["FirstCalls", "first_calls", "probe", "real_outputs"]


@dataclass(frozen=True, slots=True, eq=False)
class FirstCalls:
    """Of one chunk of inputs.

    Attributes
    ----------
    first : the call of the first block
    rest : for every block the call with its other arguments; its tensor is empty
    """

    first: Call
    rest: tuple[Call, ...]

    def shared_with(self, other: FirstCalls) -> FirstCalls:
        """The same, without a second copy of the tensors in which the calls of both agree."""
        pairs = zip(self.rest, other.rest, strict=True)
        return FirstCalls(self.first, tuple(_shared(a, b) for a, b in pairs))


def probe(x: Tensor) -> Tensor:
    """A few positions of what a block hands on, evenly spaced: (at most 64, channels)."""
    rows = x.detach().flatten(0, -2)
    return rows[:: max(1, len(rows) // 64)][:64].clone()


def first_calls(skeleton: Skeleton, inputs: Tree, tuple_out: bool) -> FirstCalls:
    """Run what lies before the blocks; the weights outside of the blocks are loaded.

    ``tuple_out``: whether blocks return a tuple.

    Raises
    ------
    ModelDirectoryError
        The blocks do not run once each, in their order, on one tensor and other arguments.
    """
    calls: list[Call] = []

    def stub(*args: Any, **kwargs: Any) -> Any:
        call = _call(skeleton.blocks[len(calls)], args, kwargs)
        calls.append(call)
        if len(calls) == len(skeleton.blocks):
            raise RunEndedError
        return (call.x,) if tuple_out else call.x

    _run(skeleton, inputs, dict.fromkeys(skeleton.blocks, stub))
    if len(calls) != len(skeleton.blocks):
        raise ModelDirectoryError(
            f"{len(calls)} of {len(skeleton.blocks)} blocks ran ('{skeleton.blocks[0]}' and those "
            "after it): the model is no plain chain of them"
        )
    first = calls[0].at(calls[0].x.clone())
    return FirstCalls(first, tuple(call.at(call.x.new_empty(0)) for call in calls))


def real_outputs(skeleton: Skeleton, inputs: Tree) -> tuple[list[Tensor], bool]:
    """(`probe` of what each block hands on in the whole model, whether blocks return a tuple).

    One block is in memory at a time.
    """
    outs: list[Tensor] = []
    kinds: set[bool] = set()

    def running(name: str) -> Callable[..., Any]:
        forward: Callable[..., Any] = skeleton.block(name).forward

        def run(*args: Any, **kwargs: Any) -> Any:
            expected = skeleton.blocks[len(outs)]
            if name != expected:
                raise ModelDirectoryError(
                    f"'{name}' runs where '{expected}' was expected: the blocks do not run once "
                    "each in their order"
                )
            x = _call(name, args, kwargs).x
            with skeleton.loaded(skeleton.inside(name)):
                out = forward(*args, **kwargs)
            y = first_tensor(out)
            if y is None or y.shape != x.shape:
                raise ModelDirectoryError(f"'{name}' hands on no tensor of its input's shape")
            outs.append(probe(y))
            kinds.add(not isinstance(out, Tensor))
            if len(outs) == len(skeleton.blocks):
                raise RunEndedError
            return out

        return run

    _run(skeleton, inputs, {name: running(name) for name in skeleton.blocks})
    return outs, kinds == {True}


def _call(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
    if not args or not isinstance(args[0], Tensor):
        raise ModelDirectoryError(f"'{name}' is not called with a tensor in front")
    return call_of(args, kwargs)


def _shared(call: Call, other: Call) -> Call:
    return replace(
        call, args=_same(call.args, other.args), kwargs=_same(dict(call.kwargs), dict(other.kwargs))
    )


def _same(tree: Any, other: Any) -> Any:
    """``tree``, with the tensors of ``other`` where they are equal."""
    if isinstance(tree, Tensor):
        equal = isinstance(other, Tensor) and tree.shape == other.shape
        return other if equal and torch.equal(tree, other) else tree
    if isinstance(tree, tuple) and isinstance(other, tuple) and len(tree) == len(other):
        return tuple(_same(a, b) for a, b in zip(tree, other, strict=True))
    if isinstance(tree, dict) and isinstance(other, dict):
        return {k: _same(v, other.get(k)) for k, v in tree.items()}
    return tree


def _run(skeleton: Skeleton, inputs: Tree, forwards: Mapping[str, Callable[..., Any]]) -> None:
    """The model on ``inputs``, its blocks' forwards replaced meanwhile."""
    blocks = [(skeleton.block(name), forward) for name, forward in forwards.items()]
    args, kwargs = arguments_of(inputs)
    try:
        for block, forward in blocks:
            block.__dict__["forward"] = forward
        with torch.no_grad():
            skeleton.model(*args, **kwargs)
    except RunEndedError:
        pass
    finally:
        for block, _ in blocks:
            block.__dict__.pop("forward", None)
