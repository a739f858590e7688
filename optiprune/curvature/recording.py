"""Which modules are called in a forward, with what, and where gradients of their outputs arrive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from .capture import CallKey
from .layers import PrunableLayer

__all__ = ["LayerCall", "OutputRecorder"]


@dataclass(frozen=True, slots=True)
class LayerCall:
    """One recorded call: its input, and where the gradient of its output arrives."""

    key: CallKey
    layer: str
    module: nn.Module
    inputs: Tensor
    output: GradientEdge


class OutputRecorder:
    """While entered, notes the calls of the layers' modules that the loss may depend on."""

    def __init__(self, layers: Sequence[PrunableLayer]) -> None:
        self._layers = layers
        self._uses: list[LayerCall] = []
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> OutputRecorder:
        for layer in self._layers:
            for name, module in zip(layer.module_names, layer.modules, strict=True):
                hook = self._hook(layer.name, name)
                self._handles.append(module.register_forward_hook(hook, with_kwargs=True))
        return self

    def __exit__(self, *exc: object) -> None:
        for handle in self._handles:
            handle.remove()

    def take(self) -> list[LayerCall]:
        """The calls since the last time."""
        uses, self._uses = self._uses, []
        return uses

    def _hook(self, layer: str, name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            x = args[0] if args else kwargs.get("input")
            if not isinstance(output, Tensor) or not output.requires_grad or x.numel() == 0:
                return output
            if output._is_view():
                # in-place operations on a view rewrite the graph behind it: its edge would be cut
                output = output.clone()
            nth = sum(use.key[0] == name for use in self._uses)
            # the edge, not the tensor: an in-place operation makes the tensor stand for its result
            edge = get_gradient_edge(output)
            self._uses.append(LayerCall((name, nth), layer, module, x.detach(), edge))
            return output

        return hook
