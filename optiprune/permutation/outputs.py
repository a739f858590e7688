"""The dense model's outputs on a few samples, to compare with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from optiprune.curvature.data import Batch, CalibrationError, CalibrationSet, Tree, tree_leaves
from optiprune.curvature.runner import run_model, untouched

__all__ = ["DenseOutputs"]

# samples of a batch, and values of their outputs; a sample alone may have more
_BATCH, _VALUES = 8, 1 << 23
# values of all outputs that are held
_HELD = 1 << 26


class DenseOutputs:
    """Outputs of a model as it is now, for small batches of ``data``, as many as fit in memory.

    Raises `CalibrationError` if an output holds no tensor of floats, or values that are not finite.
    """

    def __init__(self, model: nn.Module, data: CalibrationSet) -> None:
        self._batches: list[Batch] = []
        self._outputs: list[list[Tensor]] = []
        held = 0
        first = _floats(model, {}, next(data.batches(1)).inputs)
        size = min(_BATCH, max(1, _VALUES // max(1, _count(first))))
        for batch in data.batches(size):
            leaves = _floats(model, {}, batch.inputs)
            _require_comparable(leaves)
            if self._batches and held + _count(leaves) > _HELD:
                break
            self._batches.append(batch)
            self._outputs.append(leaves)
            held += _count(leaves)

    def change(
        self, model: nn.Module, weights: Mapping[str, Tensor], batches: int | None = None
    ) -> float:
        """Largest change of an output, in units of the largest value of its tensor before.

        Parameters
        ----------
        weights : parameters and buffers by name that replace those of the model
        batches : compare the first ones only

        Infinite for outputs of another number or shape, or that are not finite.
        """
        worst = 0.0
        pairs = zip(self._batches[:batches], self._outputs[:batches], strict=True)
        for batch, before in pairs:
            after = _floats(model, weights, batch.inputs)
            if [t.shape for t in after] != [t.shape for t in before]:
                return float("inf")
            for old, new in zip(before, after, strict=True):
                if old.numel():
                    worst = max(worst, _relative(old, new))
        return worst


def _relative(old: Tensor, new: Tensor) -> float:
    change = float((new - old).abs().max())
    if change != change:
        return float("inf")
    scale = float(old.abs().max())
    return change / scale if scale else float("inf") if change else 0.0


def _count(leaves: list[Tensor]) -> int:
    return sum(t.numel() for t in leaves)


def _floats(model: nn.Module, weights: Mapping[str, Tensor], inputs: Tree) -> list[Tensor]:
    with torch.no_grad(), untouched(model):
        output: Any = run_model(model, weights, inputs)
        return [t.detach().clone() for t in tree_leaves(output) if t.is_floating_point()]


def _require_comparable(leaves: list[Tensor]) -> None:
    if not leaves:
        raise CalibrationError(
            "the model's output holds no tensor of floats, so that it cannot be compared; let the "
            "model return a tensor, or tuples, lists or dicts of them"
        )
    if not all(bool(torch.isfinite(t).all()) for t in leaves):
        raise CalibrationError(
            "the model's outputs hold NaN or infinite values on the calibration data, so that they "
            "cannot be compared; check the data and the weights"
        )
