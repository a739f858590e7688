"""The layers of a model one after another, each with the moments of its inputs, at linear cost.

A layer of the pruned model sees what the pruned layers before it produce. Running the whole model
anew for every layer costs the square of its depth; where modules form a chain
(`optiprune.curvature.chain`), the tensors between them are kept, for the dense model and for the
pruned one, and each block is run a few times. Layers of a block that are called with the same
tensor (queries, keys and values) are one stage and share their moments.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from .activations import Activations, Window
from .block_stages import SharedInputs, Stage, block_stages, inputs_of, make_stage, same_inputs
from .capture import forward_order
from .chain import Chain, ChainBlock, find_chains
from .data import CalibrationSet
from .gram import LayerGram, collect_grams
from .layers import PrunableLayer
from .runner import run_model, untouched

__all__ = ["Inputs", "LayerWalk", "Stage", "Window"]

Inputs = Literal["pruned", "dense", "pruned-only"]


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
    weights : the attribute, where the caller has it already: equal to ``dense`` at first

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
        weights: dict[str, Tensor] | None = None,
    ) -> None:
        self.model, self.dense, self.sets = model, dict(dense), tuple(sets)
        self.chunk, self.inputs, self.per_input, self.after = chunk, inputs, per_input, after
        self.weights = dict(dense) if weights is None else weights
        self.order = forward_order(model, layers, self.dense, self.sets[0])
        sample = next(iter(self.sets[0].batches(1))).inputs
        with torch.no_grad(), untouched(model):
            self.chains = find_chains(model, self.order, self.dense, sample)
            forward = partial(run_model, model, self.dense, sample)
            first = same_inputs(self.order, inputs_of(self.order, forward))
        self._shared = SharedInputs(first, frozenset(known))

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
        shared, dense = self._shared, self.inputs == "dense"
        for group in shared.bunches(layers, len(self.sets)) if dense else shared.groups(layers):
            collect = [partial(self._whole, data) for data in self.sets]
            yield make_stage(self.model, group, shared, collect)

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
        between = [self._before(chain, data) for data in self.sets]
        last = max(i for i, block in enumerate(chain.blocks) if block.layers)
        for i, block in enumerate(chain.blocks[: last + 1]):
            dense = self.inputs == "dense"
            groups = [block.layers] if dense else self._shared.groups(block.layers)
            for activations in between:
                activations.enter(block, self.dense, self._shared.open(groups))
            yield from block_stages(
                block, groups, self._shared, between, self.dense, self.weights, self.per_input
            )
            if self.after is not None and self.inputs == "pruned" and block.layers:
                self.after(block, [activations.window() for activations in between])
            if i < last:
                for activations in between:
                    activations.leave(block, self.dense, self.weights)

    def _before(self, chain: Chain, data: CalibrationSet) -> Activations:
        """What the first block of a chain is called with."""
        chunks = list(data.batches(self.chunk))
        shares = [batch.n / data.n for batch in chunks]
        with torch.no_grad(), untouched(self.model):
            dense, pruned = [], []
            if self.inputs != "pruned-only":
                dense = [chain.first_call(self.model, self.dense, b.inputs) for b in chunks]
            if self.inputs == "pruned-only" or (self.inputs == "pruned" and self.moved()):
                pruned = [chain.first_call(self.model, self.weights, b.inputs) for b in chunks]
            elif self.inputs == "pruned":
                pruned = list(dense)
        return Activations(shares, dense, pruned)

    def moved(self) -> bool:
        """Whether a weight was written."""
        return any(self.weights[name] is not tensor for name, tensor in self.dense.items())
