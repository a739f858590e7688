"""Which layers of a model are decided side by side, and the moments that they are decided from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn

from .activations import Activations
from .capture import CallKey, tapped
from .chain import ChainBlock
from .gram import LayerGram
from .layers import PrunableLayer
from .runner import untouched

__all__ = [
    "Collect",
    "SharedInputs",
    "Stage",
    "block_stages",
    "inputs_of",
    "make_stage",
    "same_inputs",
]

# elements of the Gram matrices that one pass sums up: 256 MiB in float64, or as many times those of
# the largest layer alone
_TOGETHER = 1 << 25
_LARGEST = 1.5

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
class SharedInputs:
    """Which layers are called with one tensor, and which are decided already.

    Attributes
    ----------
    first : Linear layer -> the first one that is called with the same tensor, see `same_inputs`
    known : names of layers of which no moments are wanted
    """

    first: Mapping[str, str] = field(default_factory=dict)
    known: Collection[str] = frozenset()

    def source(self, layer: PrunableLayer) -> str:
        return self.first.get(layer.name, layer.name)

    def decided(self, layers: Sequence[PrunableLayer]) -> bool:
        return all(layer.name in self.known for layer in layers)

    def open(self, groups: Sequence[Sequence[PrunableLayer]]) -> list[PrunableLayer]:
        """`taps` of the groups that are not decided."""
        return self.taps([group for group in groups if not self.decided(group)])

    def taps(self, groups: Sequence[Sequence[PrunableLayer]]) -> list[PrunableLayer]:
        """Of the layers of a group that share their inputs the first, for every group."""
        taps: list[PrunableLayer] = []
        for group in groups:
            sources: dict[str, PrunableLayer] = {}
            for layer in group:
                sources.setdefault(self.source(layer), layer)
            taps += sources.values()
        return taps

    def groups(self, layers: Sequence[PrunableLayer]) -> list[tuple[PrunableLayer, ...]]:
        """Neighbours that are called with one tensor, together."""
        groups: list[list[PrunableLayer]] = []
        for layer in layers:
            if groups and self.source(groups[-1][0]) == self.source(layer):
                groups[-1].append(layer)
            else:
                groups.append([layer])
        return [tuple(group) for group in groups]

    def bunches(
        self, layers: Sequence[PrunableLayer], sets: int
    ) -> list[tuple[PrunableLayer, ...]]:
        """Neighbours whose Gram matrices, one of an input for every set, fit in memory together:
        one pass serves them."""
        found: list[list[PrunableLayer]] = []
        held: dict[str, int] = {}
        sizes = {layer.name: sets * layer.groups * layer.cols**2 for layer in layers}
        most = max(_TOGETHER, _LARGEST * max(sizes.values(), default=0))
        for layer in layers:
            source, size = self.source(layer), sizes[layer.name]
            if not found or (source not in held and sum(held.values()) + size > most):
                found.append([])
                held = {}
            found[-1].append(layer)
            held[source] = size
        return [tuple(bunch) for bunch in found]


def make_stage(
    model: nn.Module,
    layers: Sequence[PrunableLayer],
    shared: SharedInputs,
    collect: Sequence[Collect],
) -> Stage:
    """The moments of layers that are decided together; ``collect``: for every calibration set."""
    if shared.decided(layers):
        return Stage(tuple(layers), ())
    taps = shared.taps([layers])
    at = {shared.source(tap): tap.name for tap in taps}
    grams = []
    for each in collect:
        with torch.no_grad(), untouched(model):
            found = each(taps)
        grams.append({layer.name: found[at[shared.source(layer)]] for layer in layers})
    return Stage(tuple(layers), tuple(grams))


def block_stages(
    block: ChainBlock,
    groups: Sequence[Sequence[PrunableLayer]],
    shared: SharedInputs,
    between: Sequence[Activations],
    dense: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    per_input: int | None,
    *,
    apart: bool = False,
) -> Iterator[Stage]:
    """Stages of one block of a chain, which the caller enters before and leaves afterwards.

    Parameters
    ----------
    groups : of the block's layers, in the order in which they are decided
    between : what the block is called with, of every calibration set
    dense, weights : parameter name -> tensor of the dense and of the pruned model; the caller
        writes what it decided into the second before it asks for the next stage
    apart : see `Activations.grams`
    """

    def collect(activations: Activations, layers: Sequence[PrunableLayer]) -> dict[str, LayerGram]:
        return activations.grams(block, dense, weights, layers, per_input, apart=apart)

    for group in filter(None, groups):
        yield make_stage(block.module, group, shared, [partial(collect, a) for a in between])


def inputs_of(
    layers: Sequence[PrunableLayer], forward: Callable[[], object]
) -> dict[str, list[Tensor]]:
    """Layer -> what ``forward`` calls it with, in the order in which layers run."""
    calls: dict[str, list[Tensor]] = {}

    def visit(layer: PrunableLayer, module: nn.Module, key: CallKey, x: Tensor) -> None:
        calls.setdefault(layer.name, []).append(x)  # held, so that no memory is used twice

    tapped(layers, forward, visit)
    return calls


def same_inputs(
    layers: Sequence[PrunableLayer], calls: Mapping[str, Sequence[Tensor]]
) -> dict[str, str]:
    """Linear layer -> the first one that is called with the same tensor, once each.

    ``calls``: see `inputs_of`.
    """
    first: dict[object, str] = {}
    shared = {}
    for layer in layers:
        own = calls.get(layer.name, [])
        if len(own) == 1 and isinstance(layer.modules[0], nn.Linear):
            key = (own[0].data_ptr(), own[0].shape, own[0].stride(), own[0]._version)
            shared[layer.name] = first.setdefault(key, layer.name)
    return shared
