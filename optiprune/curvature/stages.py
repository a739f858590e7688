"""The layers of a model one after another, each with the moments of its inputs, at linear cost.

A layer of the pruned model sees what the pruned layers before it produce. Running the whole model
anew for every layer costs the square of its depth; where modules form a chain
(`optiprune.curvature.chain`), the tensors between them are kept, for the dense model and for the
pruned one, and each block is run a few times. Layers of a block that are called with the same
tensor (queries, keys and values) are one stage and share their moments.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from .capture import CallKey, Feed, Visit, forward_order, run_with_taps, tapped
from .chain import Call, Chain, ChainBlock, find_chains, first_tensor
from .data import CalibrationSet
from .gram import LayerGram, Passes, collect_grams, sum_grams
from .layers import PrunableLayer
from .runner import untouched

__all__ = ["Inputs", "LayerWalk", "Stage", "Window"]

# elements of the Gram matrices that one pass of a whole model sums up: 256 MiB in float64
_TOGETHER = 1 << 25

Inputs = Literal["pruned", "dense", "pruned-only"]
Collect: TypeAlias = Callable[[Sequence[PrunableLayer]], dict[str, LayerGram]]


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """Layers that can be decided side by side: none of them sees another's output.

    Attributes
    ----------
    layers : in the order in which they run
    grams : for every calibration set, layer name -> `LayerGram`; empty where all were ``known``
    """

    layers: tuple[PrunableLayer, ...]
    grams: tuple[dict[str, LayerGram], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A block's calls in the pruned model, chunk by chunk, and the dense block's outputs there."""

    calls: tuple[Call, ...]
    targets: tuple[Tensor, ...]


class LayerWalk:
    """Iterates over the stages of a model in the order in which they run.

    The caller writes the weights that it chose for a stage's layers into ``weights`` before it asks
    for the next stage; the model itself is never written.

    Parameters
    ----------
    layers : that take part
    dense : parameter name -> tensor of the dense model
    sets : calibration sets; each stage has moments of each of them
    chunk : samples run at once
    inputs : 'pruned': inputs of the pruned model, outputs of the dense one as targets; 'dense':
        inputs of the dense model; 'pruned-only': inputs of the pruned model for both, so that a
        layer does not repair what those before it lost (H = C = D)
    per_input : positions for each column of a layer, at most, see `collect_grams`
    after : called when all layers of a block of a chain are decided, with the block and its
        windows, one for every calibration set; it may write into ``weights``. With inputs 'pruned'
        alone.
    known : names of layers whose weights the caller has already: where all of a stage are, no
        moments are taken

    Attributes
    ----------
    order : the layers in the order in which they run
    weights : parameter name -> tensor of the pruned model

    Raises
    ------
    CalibrationError
        A layer that never runs; see also `collect_grams`.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[PrunableLayer],
        dense: Mapping[str, Tensor],
        sets: Sequence[CalibrationSet],
        chunk: int = 256,
        inputs: Inputs = "pruned",
        per_input: int | None = None,
        after: Callable[[ChainBlock, Sequence[Window]], None] | None = None,
        known: Collection[str] = (),
    ) -> None:
        self.model, self.dense, self.sets = model, dict(dense), tuple(sets)
        self.chunk, self.inputs, self.per_input, self.after = chunk, inputs, per_input, after
        self.known = frozenset(known)
        self.weights = dict(dense)
        self.order = forward_order(model, layers, self.dense, self.sets[0])
        sample = next(iter(self.sets[0].batches(1))).inputs
        with torch.no_grad(), untouched(model):
            self.chains = find_chains(model, self.order, self.dense, sample)
            self._shared = _same_inputs(model, self.order, self.dense, sample)

    def __iter__(self) -> Iterator[Stage]:
        inside = {
            layer.name: chain for chain in self.chains for b in chain.blocks for layer in b.layers
        }
        walked: list[Chain] = []
        loose: list[PrunableLayer] = []
        for layer in self.order:
            chain = inside.get(layer.name)
            if chain is None:
                loose.append(layer)
            elif chain not in walked:
                yield from self._loose(loose)
                yield from self._chain(chain)
                walked.append(chain)
                loose = []
        yield from self._loose(loose)

    def _loose(self, layers: Sequence[PrunableLayer]) -> Iterator[Stage]:
        """Layers that no chain holds: the model runs up to them."""
        if not layers:
            return
        for group in self._bunches(layers) if self.inputs == "dense" else self._groups(layers):
            yield self._stage(group, [partial(self._whole, data) for data in self.sets])

    def _bunches(self, layers: Sequence[PrunableLayer]) -> Iterator[list[PrunableLayer]]:
        """Neighbours whose matrices fit in memory together: one pass of the model serves them."""
        bunch: list[PrunableLayer] = []
        held = 0
        for layer in layers:
            size = len(self.sets) * layer.groups * layer.cols**2
            if bunch and held + size > _TOGETHER:
                yield bunch
                bunch, held = [], 0
            bunch.append(layer)
            held += size
        if bunch:
            yield bunch

    def _whole(self, data: CalibrationSet, layers: Sequence[PrunableLayer]) -> dict[str, LayerGram]:
        first, second = self.dense, self.weights
        if self.inputs == "pruned-only":
            first = second
        moved = self.inputs == "pruned" and self.moved()
        return collect_grams(
            self.model,
            layers,
            first,
            second if moved else None,
            data,
            self.chunk,
            self.per_input,
        )

    def _chain(self, chain: Chain) -> Iterator[Stage]:
        between = [_Activations(self, chain, data) for data in self.sets]
        last = max(i for i, block in enumerate(chain.blocks) if block.layers)
        for i, block in enumerate(chain.blocks[: last + 1]):
            groups = [block.layers] if self.inputs == "dense" else self._groups(block.layers)
            for activations in between:
                activations.enter(block, self._taps([g for g in groups if not self._decided(g)]))
            for group in filter(None, groups):
                yield self._stage(group, [partial(a.grams, block) for a in between])
            if self.after is not None and self.inputs == "pruned" and block.layers:
                self.after(block, [activations.window() for activations in between])
            if i < last:
                for activations in between:
                    activations.leave(block)

    def _stage(self, layers: Sequence[PrunableLayer], collect: Sequence[Collect]) -> Stage:
        """``collect``: for every calibration set."""
        if self._decided(layers):
            return Stage(tuple(layers), ())
        taps = self._taps([layers])
        at = {self._source(tap): tap.name for tap in taps}
        grams = []
        for each in collect:
            with torch.no_grad(), untouched(self.model):
                found = each(taps)
            grams.append({layer.name: found[at[self._source(layer)]] for layer in layers})
        return Stage(tuple(layers), tuple(grams))

    def _taps(self, groups: Sequence[Sequence[PrunableLayer]]) -> list[PrunableLayer]:
        """Of the layers of a group that share their inputs the first, for every group."""
        taps: list[PrunableLayer] = []
        for group in groups:
            sources: dict[str, PrunableLayer] = {}
            for layer in group:
                sources.setdefault(self._source(layer), layer)
            taps += sources.values()
        return taps

    def _decided(self, layers: Sequence[PrunableLayer]) -> bool:
        return all(layer.name in self.known for layer in layers)

    def _groups(self, layers: Sequence[PrunableLayer]) -> list[tuple[PrunableLayer, ...]]:
        """Neighbours that are called with one tensor, together."""
        groups: list[list[PrunableLayer]] = []
        for layer in layers:
            if groups and self._source(groups[-1][0]) == self._source(layer):
                groups[-1].append(layer)
            else:
                groups.append([layer])
        return [tuple(group) for group in groups]

    def _source(self, layer: PrunableLayer) -> str:
        return self._shared.get(layer.name, layer.name)

    def moved(self) -> bool:
        """Whether a weight was written."""
        return any(self.weights[name] is not tensor for name, tensor in self.dense.items())


class _Activations:
    """What the next block of a chain is called with, of one calibration set, chunk by chunk."""

    def __init__(self, walk: LayerWalk, chain: Chain, data: CalibrationSet) -> None:
        self.walk = walk
        model, chunks = walk.model, list(data.batches(walk.chunk))
        self.shares = [batch.n / data.n for batch in chunks]
        self.dense: list[Call] = []
        self.pruned: list[Call] = []
        self.kept: list[_KeptInputs] = []
        self.ahead: list[Call] = []
        with torch.no_grad(), untouched(model):
            if walk.inputs != "pruned-only":
                self.dense = [chain.first_call(model, walk.dense, b.inputs) for b in chunks]
            if walk.inputs == "pruned-only" or (walk.inputs == "pruned" and walk.moved()):
                self.pruned = [chain.first_call(model, walk.weights, b.inputs) for b in chunks]
            elif walk.inputs == "pruned":
                self.pruned = list(self.dense)

    def enter(self, block: ChainBlock, layers: Sequence[PrunableLayer]) -> None:
        """With both forms: run the dense one, keep the inputs of ``layers``, and go on with it."""
        if self.dense and self.pruned:
            self.kept = [_KeptInputs() for _ in self.dense]
            weights = block.own(self.walk.dense)
            visits = [kept.visit for kept in self.kept]
            self.dense = _advanced(self.dense, block, weights, layers, visits)

    def grams(self, block: ChainBlock, layers: Sequence[PrunableLayer]) -> dict[str, LayerGram]:
        pruned = block.own(self.walk.weights)

        def run(call: Call) -> Feed:
            return partial(tapped, layers, partial(call.run, block.module, pruned))

        def passes() -> Passes:
            if not self.pruned:
                self.ahead = []
                for share, call in zip(self.shares, self.dense, strict=True):
                    yield share, partial(self._going_on, block, layers, call), None
            elif not self.dense:
                for share, call in zip(self.shares, self.pruned, strict=True):
                    yield share, run(call), None
            else:
                for share, kept, call in zip(self.shares, self.kept, self.pruned, strict=True):
                    yield share, partial(kept.feed, layers), run(call)

        return sum_grams(layers, passes(), self.walk.per_input)

    def _going_on(
        self,
        block: ChainBlock,
        layers: Sequence[PrunableLayer],
        call: Call,
        visit: Visit,
        *,
        until_all: bool = False,
    ) -> None:
        """Show the inputs of the dense form, and keep its output: it need not run once more."""
        self.ahead += _advanced([call], block, block.own(self.walk.dense), layers, [visit])

    def window(self) -> Window:
        """What the block that was entered is called with, and what the dense one made of it."""
        return Window(tuple(self.pruned), tuple(call.x for call in self.dense))

    def leave(self, block: ChainBlock) -> None:
        """Go on with the pruned form, or with the dense one if it is alone."""
        self.kept = []
        if self.pruned:
            self.pruned = _advanced(self.pruned, block, block.own(self.walk.weights))
        elif self.ahead:
            self.dense, self.ahead = self.ahead, []
        else:
            self.dense = _advanced(self.dense, block, block.own(self.walk.dense))


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
    calls: Sequence[Call],
    block: ChainBlock,
    weights: Mapping[str, Tensor],
    layers: Sequence[PrunableLayer] = (),
    visits: Sequence[Visit] = (),
) -> list[Call]:
    """The calls of the block after this one; ``visits`` see the inputs of ``layers``."""
    after = []
    with torch.no_grad(), untouched(block.module):
        for i, call in enumerate(calls):
            out: list[object] = []

            def forward(call: Call = call, out: list[object] = out) -> None:
                out.append(call.run(block.module, weights))

            if layers:
                tapped(layers, forward, visits[i])
            else:
                forward()
            x = first_tensor(out[0])
            assert x is not None
            after.append(call.at(x))
    return after


def _same_inputs(
    model: nn.Module,
    layers: Sequence[PrunableLayer],
    weights: Mapping[str, Tensor],
    inputs: object,
) -> dict[str, str]:
    """Linear layer -> the first one that is called with the same tensor, once each."""
    calls: dict[str, list[Tensor]] = {}

    def visit(layer: PrunableLayer, module: nn.Module, key: CallKey, x: Tensor) -> None:
        calls.setdefault(layer.name, []).append(x)  # held, so that no memory is used twice

    run_with_taps(model, layers, weights, inputs, visit)
    first: dict[object, str] = {}
    shared = {}
    for layer in layers:
        own = calls.get(layer.name, [])
        if len(own) == 1 and isinstance(layer.modules[0], nn.Linear):
            key = (own[0].data_ptr(), own[0].shape, own[0].stride(), own[0]._version)
            shared[layer.name] = first.setdefault(key, layer.name)
    return shared
