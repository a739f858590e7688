"""What runs through a chain of blocks, kept between two of them, for one calibration set.

Both forms of a model are held: what the dense blocks so far hand on, and what the pruned ones do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn

from .capture import CallKey, Feed, Visit, tapped
from .chain import Call, ChainBlock, first_tensor
from .gram import LayerGram, Passes, sum_grams
from .layers import PrunableLayer
from .runner import untouched

__all__ = ["Activations", "Keep", "Window"]

Keep: TypeAlias = Callable[[Iterable[Call]], Sequence[Call]]
"""Holds the calls of all chunks: `list`, or what writes them to a disk."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A block's calls in the pruned model, chunk by chunk, and the dense block's outputs there."""

    calls: tuple[Call, ...]
    targets: tuple[Tensor, ...]


class Activations:
    """What the next block of a chain is called with, of one calibration set, chunk by chunk.

    Parameters
    ----------
    shares : of each chunk, of all samples of the set
    dense : calls of the dense form; empty where it is not wanted
    pruned : calls of the pruned form; empty where the dense one serves for both
    keep : how calls are held
    recompute : run the dense block anew for each stage, in place of keeping what its layers see
    """

    def __init__(
        self,
        shares: Sequence[float],
        dense: Sequence[Call],
        pruned: Sequence[Call],
        *,
        keep: Keep = list,
        recompute: bool = False,
    ) -> None:
        self.shares, self.dense, self.pruned = tuple(shares), dense, pruned
        self.keep, self.recompute = keep, recompute
        self._before: Sequence[Call] = ()
        self._kept: list[_KeptInputs] = []
        self._ahead: list[Call] = []

    @property
    def both(self) -> bool:
        return bool(self.dense) and bool(self.pruned)

    def enter(
        self, block: ChainBlock, dense: Mapping[str, Tensor], layers: Sequence[PrunableLayer]
    ) -> None:
        """With both forms: run the dense one, keep the inputs of ``layers``, and go on with it.

        ``dense``: the model's parameter name -> tensor.
        """
        if not self.both:
            return
        self._before, weights = self.dense, block.own(dense)
        if self.recompute:
            layers = ()
        self._kept = [_KeptInputs() for _ in self.dense]
        visits = [kept.visit for kept in self._kept]
        self.dense = self.keep(_advanced(self._before, block, weights, layers, visits))
        if not self.recompute:
            self._before = ()

    def grams(
        self,
        block: ChainBlock,
        dense: Mapping[str, Tensor],
        pruned: Mapping[str, Tensor],
        layers: Sequence[PrunableLayer],
        per_input: int | None,
        *,
        apart: bool = False,
    ) -> dict[str, LayerGram]:
        """Moments of the inputs of layers of the block that was entered.

        Parameters
        ----------
        dense, pruned : the model's parameter name -> tensor
        apart : take the inputs of the pruned form for both, where those of the dense one cannot be
            matched: experts of a mixture choose their tokens
        """
        first, second = block.own(dense), block.own(pruned)

        def run(call: Call, weights: Mapping[str, Tensor]) -> Feed:
            return partial(tapped, layers, partial(call.run, block.module, weights))

        def passes() -> Passes:
            if not self.pruned and self.recompute:
                for share, call in zip(self.shares, self.dense, strict=True):
                    yield share, run(call, first), None
            elif not self.pruned:
                self._ahead = []
                for share, call in zip(self.shares, self.dense, strict=True):
                    yield share, partial(self._going_on, block, first, layers, call), None
            elif not self.dense or apart:
                for share, call in zip(self.shares, self.pruned, strict=True):
                    yield share, run(call, second), None
            elif self.recompute:
                both = zip(self.shares, self._before, self.pruned, strict=True)
                for share, before, call in both:
                    yield share, run(before, first), run(call, second)
            else:
                for share, kept, call in zip(self.shares, self._kept, self.pruned, strict=True):
                    yield share, partial(kept.feed, layers), run(call, second)

        return sum_grams(layers, passes(), per_input)

    def _going_on(
        self,
        block: ChainBlock,
        weights: Mapping[str, Tensor],
        layers: Sequence[PrunableLayer],
        call: Call,
        visit: Visit,
        *,
        until_all: bool = False,
    ) -> None:
        """Show the inputs of the dense form, and keep its output: it need not run once more."""
        self._ahead += _advanced([call], block, weights, layers, [visit])

    def window(self) -> Window:
        """What the block that was entered is called with, and what the dense one made of it."""
        return Window(tuple(self.pruned), tuple(call.x for call in self.dense))

    def leave(
        self, block: ChainBlock, dense: Mapping[str, Tensor], pruned: Mapping[str, Tensor]
    ) -> None:
        """Go on with the pruned form, or with the dense one if it is alone."""
        self._kept, self._before = [], ()
        if self.pruned:
            self.pruned = self.keep(_advanced(self.pruned, block, block.own(pruned)))
        elif self._ahead:
            self.dense, self._ahead = self._ahead, []
        else:
            self.dense = self.keep(_advanced(self.dense, block, block.own(dense)))


class _KeptInputs:
    """Inputs of layers in one forward, to be shown later."""

    def __init__(self) -> None:
        self.calls: list[tuple[PrunableLayer, nn.Module, CallKey, Tensor]] = []

    def visit(self, layer: PrunableLayer, module: nn.Module, key: CallKey, x: Tensor) -> None:
        self.calls.append((layer, module, key, x.clone()))  # it may be overwritten in place

    def feed(
        self, layers: Sequence[PrunableLayer], visit: Visit, *, until_all: bool = False
    ) -> None:
        for layer, module, key, x in self.calls:
            if layer in layers:
                visit(layer, module, key, x)


def _advanced(
    calls: Iterable[Call],
    block: ChainBlock,
    weights: Mapping[str, Tensor],
    layers: Sequence[PrunableLayer] = (),
    visits: Sequence[Visit] = (),
) -> Iterator[Call]:
    """The calls of the block after this one; ``visits`` see the inputs of ``layers``."""
    for i, call in enumerate(calls):
        out: list[object] = []

        def forward(call: Call = call, out: list[object] = out) -> None:
            out.append(call.run(block.module, weights))

        with torch.no_grad(), untouched(block.module):
            if layers:
                tapped(layers, forward, visits[i])
            else:
                forward()
        x = first_tensor(out[0])
        assert x is not None
        yield call.at(x)
