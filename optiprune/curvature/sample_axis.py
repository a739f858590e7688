"""Which entries of a layer's input belong to which sample.

A model may hand its samples to a layer as (samples, ...), time first as (time, samples, ...), or
merged with windows or frames into one axis. The shape of one input does not tell these apart (as
many tokens as samples), so a few samples are run on their own: the axis that counts samples is the
one that shrinks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .capture import CallKey, run_with_taps
from .data import Batch, CalibrationError
from .layers import PrunableLayer

__all__ = ["AxisFinder", "SampleAxis", "as_batch"]


@dataclass(frozen=True, slots=True)
class SampleAxis:
    """Where the samples are in the input and in the output of a layer.

    Attributes
    ----------
    axis : the axis that counts samples, or samples times entries (frames, windows)
    interleaved : whether entry 0 of all samples comes before entry 1 of any; otherwise the entries
        of a sample stand together
    """

    axis: int
    interleaved: bool = False

    def split(self, t: Tensor, n: int) -> Tensor:
        """``t`` as (n, entries, ...), the other axes in their order. ``t`` must not be empty."""
        t = t.movedim(self.axis, 0)
        if self.interleaved:
            return t.reshape(-1, n, *t.shape[1:]).transpose(0, 1)
        return t.reshape(n, -1, *t.shape[1:])

    def fits(self, whole: Tensor, n: int, part: Tensor, m: int) -> bool:
        """Whether ``part``, of m samples, may be some of the n samples of ``whole``."""
        want = list(whole.shape)
        want[self.axis] = want[self.axis] // n * m
        return list(part.shape) == want

    def distance(self, whole: Tensor, n: int, part: Tensor, m: int) -> float:
        """How far the first m samples of ``whole`` are from ``part``."""
        difference = self.split(whole, n)[:m] - self.split(part, m)
        return float(difference.abs().sum(dtype=torch.float64))


class AxisFinder:
    """Finds the sample axis of every call of every layer, and remembers it."""

    def __init__(
        self, model: nn.Module, layers: Sequence[PrunableLayer], weights: Mapping[str, Tensor]
    ) -> None:
        self._model, self._layers, self._weights = model, layers, weights
        self._known: dict[CallKey, SampleAxis] = {}

    def axes(
        self, batch: Batch, inputs: Mapping[CallKey, tuple[nn.Module, Tensor]]
    ) -> dict[CallKey, SampleAxis]:
        """The sample axis of each call in ``inputs``, which are those that ``batch`` gave.

        May run the model on one or two samples, in the caller's grad mode.

        Raises
        ------
        CalibrationError
            The input of a layer does not part into the samples.
        """
        n = batch.n
        if n == 1:  # nothing to tell apart, and nothing to learn
            return dict.fromkeys(inputs, SampleAxis(0))
        if not self._known.keys() >= inputs.keys():
            m = min(2, n - 1)
            parts = self._inputs(batch.take(slice(0, m)))
            for key, (module, x) in inputs.items():
                if key not in self._known:
                    self._known[key] = _choose(key, module, x, n, parts.get(key), m)
        for key, (_, x) in inputs.items():
            axis = self._known[key].axis
            if axis >= x.ndim - 1 or x.shape[axis] % n:
                raise _unclear(key, x, n)
        return {key: self._known[key] for key in inputs}

    def _inputs(self, batch: Batch) -> dict[CallKey, Tensor]:
        found: dict[CallKey, Tensor] = {}

        def visit(layer: PrunableLayer, module: nn.Module, key: CallKey, x: Tensor) -> None:
            found[key] = as_batch(module, x).clone()

        run_with_taps(self._model, self._layers, self._weights, batch.inputs, visit)
        return found


def as_batch(module: nn.Module, t: Tensor) -> Tensor:
    """Input or output of a layer; a single image of a convolution as a batch of one."""
    return t[None] if isinstance(module, nn.Conv2d) and t.ndim == 3 else t


def _by_shape(module: nn.Module, shape: Sequence[int], n: int) -> Iterator[SampleAxis]:
    """The axes that n samples may be in; entries that stand together come first."""
    for axis in [0] if isinstance(module, nn.Conv2d) else range(len(shape) - 1):
        if shape[axis] % n == 0:
            yield SampleAxis(axis)
            if shape[axis] > n:
                yield SampleAxis(axis, interleaved=True)


def _choose(
    key: CallKey, module: nn.Module, x: Tensor, n: int, part: Tensor | None, m: int
) -> SampleAxis:
    found = list(_by_shape(module, x.shape, n))
    if part is not None:
        found = [a for a in found if a.fits(x, n, part, m)]
        # the order within an axis shows in the values alone
        found = found if len(found) < 2 else [min(found, key=lambda a: a.distance(x, n, part, m))]
    if len(found) != 1:
        raise _unclear(key, x, n)
    return found[0]


def _unclear(key: CallKey, x: Tensor, n: int) -> CalibrationError:
    return CalibrationError(
        f"layer '{key[0]}' was called with an input of shape {tuple(x.shape)} for {n} samples, in "
        "which each sample's own part cannot be found (samples that are routed, packed or mixed); "
        "exclude it"
    )
