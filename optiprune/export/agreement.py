"""Does the exported program compute what the model does?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from .errors import ExportError

__all__ = ["Agreement", "Example", "compare"]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far an exported program was found from its model, and on what.

    Attributes
    ----------
    error : largest difference of an output, over the largest magnitude of that output
    batches : sizes of the batches that were tried
    """

    error: float
    batches: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """Inputs to export a model with, and to try the program on.

    Attributes
    ----------
    args, kwargs : what the model is called with: tensors, or trees of them
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def batch(self) -> int:
        """The first dimension of the first tensor that has one. Raises `ExportError` for none."""
        for t in tree_leaves((self.args, self.kwargs)):
            if isinstance(t, Tensor) and t.ndim:
                return int(t.shape[0])
        raise ExportError("the example inputs hold no tensor with a batch dimension")

    def sized(self, batch: int) -> Example:
        """The same samples, over and over, in a batch of that size."""
        n = self.batch

        def resize(t: Tensor) -> Tensor:
            if t.ndim == 0 or t.shape[0] != n:
                return t
            return t[torch.arange(batch, device=t.device) % n]

        args, kwargs = tree_map_only(Tensor, resize, (self.args, self.kwargs))
        return Example(args, kwargs)

    def dynamic_shapes(self) -> Any:
        """What torch.export wants: the batch dimension of every tensor that has it is free."""
        n, free = self.batch, torch.export.Dim("batch")
        args, kwargs = tree_map_only(
            Tensor,
            lambda t: {0: free} if t.ndim and t.shape[0] == n else None,
            (self.args, self.kwargs),
        )
        return kwargs if kwargs else args


def compare(
    model: Callable[..., Any],
    program: Callable[[Example], Sequence[Tensor]],
    examples: Iterable[Example],
    tolerance: float,
    what: str,
) -> Agreement:
    """Compare all outputs on all examples. Raises `ExportError` if they differ by more."""
    worst, batches = 0.0, []
    for example in examples:
        with torch.no_grad():
            outputs = model(*example.args, **example.kwargs)
        want = [t for t in tree_leaves(outputs) if isinstance(t, Tensor)]
        got = program(example)
        if [tuple(t.shape) for t in want] != [tuple(t.shape) for t in got]:
            raise ExportError(
                f"{what} gives outputs of shapes {[tuple(t.shape) for t in got]}, the model of "
                f"{[tuple(t.shape) for t in want]}, on a batch of {example.batch}"
            )
        for a, b in zip(want, got, strict=True):
            if a.numel():
                scale = max(float(a.abs().max()), 1e-30)
                off = float((a.cpu().double() - b.cpu().double()).abs().max()) / scale
                worst = max(worst, off if off == off else float("inf"))
        batches.append(example.batch)
        if worst > tolerance:
            raise ExportError(
                f"{what} computes something else than the model: outputs differ by {worst:.2g} "
                f"of their size on a batch of {example.batch} (tolerance is {tolerance:g})"
            )
    return Agreement(worst, tuple(batches))
