"""The operations of a model on example inputs, by torch.export, and where in its source each is."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind

from .modes import evaluating
from .units import Barrier

__all__ = ["Trace", "TraceError", "operation_of", "place_of", "tensors_of", "trace"]

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')


class TraceError(ValueError):
    """The model could not be traced."""


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """What `trace` returns.

    Attributes
    ----------
    graph : of aten operations, none of which writes to its inputs
    holders : placeholder -> names of the parameters or buffers that it stands for: more than one
        where modules share a tensor
    buffers : placeholders of buffers
    constants : placeholder -> tensor that the model's code made
    """

    graph: fx.Graph
    holders: Mapping[str, tuple[str, ...]]
    buffers: frozenset[str]
    constants: Mapping[str, Tensor]


def trace(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Trace:
    """Trace a model in eval mode; the model is left as it was.

    Raises
    ------
    TraceError
        torch.export cannot follow the model; the message says where.
    """
    try:
        with evaluating(model), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about its own pytrees
            program = torch.export.export(model, args, dict(kwargs), strict=False)
            program = program.run_decompositions({})
    except Exception as error:
        raise TraceError(f"torch.export could not trace {type(model).__name__}: {error}") from error
    tensors = tensors_of(model)
    by_tensor: dict[int, list[str]] = {}
    for name, t in tensors.items():
        by_tensor.setdefault(id(t), []).append(name)
    holders: dict[str, tuple[str, ...]] = {}
    buffers: set[str] = set()
    constants: dict[str, Tensor] = {}
    for spec in program.graph_signature.input_specs:
        placeholder: str = getattr(spec.arg, "name", "")
        target = spec.target
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and target in tensors:
            holders[placeholder] = tuple(by_tensor[id(tensors[target])])
            if spec.kind is InputKind.BUFFER:
                buffers.add(placeholder)
        elif spec.kind in (InputKind.CONSTANT_TENSOR, InputKind.BUFFER):
            value = program.constants.get(str(target))
            if isinstance(value, Tensor):
                constants[placeholder] = value
    return Trace(program.graph, holders, frozenset(buffers), constants)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters, then buffers, under all their names."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def operation_of(node: fx.Node) -> str:
    """``"conv2d"`` for ``aten.conv2d.default``; the whole name of what is no aten operation."""
    space, _, rest = str(node.target).partition(".")
    return rest.split(".")[0] if space == "aten" else str(node.target)


def place_of(node: fx.Node, reason: str) -> Barrier:
    """A barrier at an operation: its name, the module and the line of the model that ran it."""
    stack = node.meta.get("nn_module_stack") or {}
    module = list(stack.values())[-1][0] if stack else ""
    # the call from the model: frames of torch's own modules come after it
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    own = [f for f in frames if "/torch/nn/" not in f[0]] or frames
    line = f"{own[-1][0].rsplit('/', 1)[-1]}:{own[-1][1]}" if own else ""
    return Barrier(str(node.target), reason, module, line)
