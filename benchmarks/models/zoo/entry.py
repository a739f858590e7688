"""A network of the zoo: how it is made, what it is called with, and weights that hide nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Entry", "Example", "configured", "images", "randomised", "tokens"]


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A model with example inputs, a batch of two."""

    model: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """A network of the zoo.

    Attributes
    ----------
    make : the example with the weights of its definition; torch's seed is set before
    source : where the definition is from
    """

    make: Callable[[], Example]
    source: str


def configured(
    kind: str, config: str, inputs: Callable[[], Mapping[str, Tensor]], **of: Any
) -> Entry:
    """A model that transformers builds from a configuration, nothing loaded."""

    def make() -> Example:
        library = import_module("transformers")
        return Example(getattr(library, kind)(getattr(library, config)(**of)), (), inputs())

    return Entry(make, f"transformers {kind}")


def images(size: int = 112, channels: int = 3, batch: int = 2) -> Tensor:
    return torch.randn(batch, channels, size, size)


def tokens(length: int = 16, vocabulary: int = 100, batch: int = 2) -> Tensor:
    return torch.randint(3, vocabulary, (batch, length))


_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
)


def randomised(example: Example, seed: int) -> Example:
    """Every weight, bias and statistic at random and away from 0 and 1, in place.

    A network as its definition leaves it hides errors: biases and means of zero, scales and
    variances of one. The statistics of a batch norm are those of the example, so that depth does
    not let activations vanish or explode, and then moved.
    """
    torch.manual_seed(seed)
    model = example.model
    with torch.no_grad():
        for module in model.modules():
            for name, p in module.named_parameters(recurse=False):
                _draw(module, name, p)
        model.train()
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        moment = [m.momentum for m in norms]
        for m in norms:
            m.momentum = 1.0  # what this one batch has
        if norms:
            model(*example.args, **example.kwargs)
        for m, old in zip(norms, moment, strict=True):
            m.momentum = old
            if m.running_mean is not None and m.running_var is not None:
                m.running_mean.add_(0.3 * m.running_var.sqrt() * torch.randn_like(m.running_mean))
                m.running_var.mul_(torch.empty_like(m.running_var).uniform_(0.6, 1.6)).add_(1e-3)
    model.eval()
    return example


def _draw(module: nn.Module, name: str, p: Tensor) -> None:
    if not p.is_floating_point():
        return
    norm = isinstance(module, _NORMS) or "Norm" in type(module).__name__
    if p.ndim <= 1:
        if name == "weight" or "gamma" in name or "lambda" in name or "scale" in name or norm:
            p.uniform_(0.5, 1.5) if name != "bias" else p.normal_(0, 0.3)
        else:
            p.normal_(0, 0.3)
    elif isinstance(module, nn.Embedding):
        p.normal_(0, 0.7)
        if module.padding_idx is not None:
            p[module.padding_idx].normal_(0, 0.7)
    elif isinstance(module, nn.Linear | nn.modules.conv._ConvNd) or name.startswith("weight"):
        rows = p.shape[0]
        if type(module).__name__ == "Conv1D":  # of transformers: (in, out)
            rows = p.shape[1]
        fan = max(1, p.numel() // rows)
        if getattr(module, "transposed", False):
            fan = max(1, p.numel() // p.shape[1])
        p.normal_(0, (1.6 / fan) ** 0.5)
    else:  # positions, tokens of a class, layer scales, tables, experts
        p.normal_(0, 0.3)
