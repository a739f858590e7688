"""Run a model with other weights than its own, and leave no trace on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .data import Tree
from .inputs import arguments_of

__all__ = ["run_model", "seed_generators", "untouched"]


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; on exit modes, buffers, ``requires_grad`` and random state are back.

    Dropout and batch normalisation behave as in evaluation; the model may draw random numbers
    (they are seeded) without moving the caller's generators. Parameter gradients are not written.
    """
    modes = [(m, m.training) for m in model.modules()]
    # a forward may assign a new tensor to a buffer as well as write into it
    buffers = [(m, dict(m._buffers)) for m in model.modules() if m._buffers]
    contents = [(b, b.detach().clone()) for b in model.buffers()]
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.is_cuda})
    with torch.random.fork_rng(devices=devices):
        seed_generators(0, devices)
        model.eval()
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            for module, own in buffers:
                module._buffers.clear()
                module._buffers.update(own)
            with torch.no_grad():
                for buffer, saved in contents:
                    if not torch.equal(buffer, saved):
                        buffer.copy_(saved)


def seed_generators(seed: int, cuda: Iterable[int | torch.device]) -> None:
    """Of the CPU and of these devices: torch.manual_seed would seed every device, also those that
    a caller does not put back."""
    torch.default_generator.manual_seed(seed)
    for device in cuda:
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def run_model(model: nn.Module, weights: Mapping[str, Tensor], inputs: Tree) -> Any:
    """The model's output with the parameters named in ``weights`` replaced for this call alone.

    Tied parameters follow the one that is named.
    """
    args, kwargs = arguments_of(inputs)
    return functional_call(model, dict(weights), args, kwargs, tie_weights=True)
