"""One block of a model that is not in memory as a whole: layers, first masks, and the search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from optiprune.config import Config
from optiprune.curvature.activations import Activations
from optiprune.curvature.block_stages import SharedInputs, block_stages, inputs_of, same_inputs
from optiprune.curvature.capture import CallKey, Feed, tapped
from optiprune.curvature.chain import Call, ChainBlock
from optiprune.curvature.gram import sum_squares
from optiprune.curvature.layers import PrunableLayer, find_layers
from optiprune.curvature.runner import untouched
from optiprune.engine.budgets import make_budgets
from optiprune.engine.crew import Crew
from optiprune.engine.first_mask import mask_by_scores
from optiprune.engine.initial import scores_by_norms
from optiprune.engine.layer_by_layer import LayerByLayer, Progress
from optiprune.engine.reconstruction_result import ReconstructionResult
from optiprune.engine.state import WeightState
from optiprune.engine.steps import StepStore
from optiprune.engine.stored_layers import StoredLayers
from optiprune.engine.window_tuning import tunes_windows
from optiprune.solvers import Solver, Stop

__all__ = ["BlockPruning", "PrunedBlock", "Unseen", "pass_through"]


@dataclass(frozen=True, slots=True)
class Unseen:
    """A layer of an expert that saw too few tokens to be pruned by them."""

    layer: str
    tokens: int


@dataclass(frozen=True, slots=True, eq=False)
class PrunedBlock:
    """What became of a block.

    Attributes
    ----------
    layers : in the order in which they were decided, then those of ``unseen``
    result : masks, values, errors and records; by the parameters' names in the model
    weights : parameter name -> pruned weights, float32
    unseen : which keep their largest weights, as they are
    """

    layers: tuple[PrunableLayer, ...]
    result: ReconstructionResult
    weights: Mapping[str, Tensor]
    unseen: tuple[Unseen, ...]


@dataclass(slots=True)
class BlockPruning:
    """All that the blocks of a run have in common.

    Attributes
    ----------
    experts : what names of layers of experts begin with
    floor : tokens that an expert's layer must have seen in every set that is fitted
    samples : of every calibration set to fit; one more set judges, if there is one
    share : see `layer_by_layer.rows_share`
    """

    config: Config
    solver: Solver
    stop: Stop | None
    seed: np.random.SeedSequence
    first_seed: np.random.SeedSequence
    share: float
    experts: tuple[str, ...]
    samples: tuple[int, ...]
    floor: int
    steps: StepStore
    crew: Crew | None = None
    progress: Progress | None = None

    @property
    def fits(self) -> int:
        return len(self.samples)

    def run(
        self,
        name: str,
        block: nn.Module,
        include: Sequence[str],
        between: Sequence[Activations],
        before: int,
        stored: torch.dtype | None,
    ) -> PrunedBlock:
        """Decide the layers ``include`` of a block, and go on to the next one.

        Parameters
        ----------
        name, block : with its weights; they are not changed
        between : what the block is called with, of every calibration set; held-out samples last
        before : number of layers that are decided
        stored : type of the weights in the checkpoint, to which they are rounded; None: float32

        Raises
        ------
        LayerError, CalibrationError, BudgetError, StepFailedError
        """
        root, store = _rooted(name, block), StoredLayers(self.steps, stored)
        layers = find_layers(root, include=include, types=("Linear",))
        state = WeightState(root, layers)
        dense = state.dense_weights()
        chain = ChainBlock(name, block, tuple(layers))
        plain = [x for x in layers if not x.name.startswith(self.experts)]
        experts = [x for x in layers if x.name.startswith(self.experts)]
        first = between[0].dense or between[0].pruned
        with torch.no_grad(), untouched(block):
            inputs = inputs_of(layers, partial(first[0].run, block, chain.own(dense)))
        shared = SharedInputs(same_inputs(layers, inputs), frozenset(store.known(layers)))
        plain = _in_order(chain, plain, dense, first[1:], tuple(inputs))
        del inputs
        masks = self._first_masks(state, chain, dense, between)
        weights = dict(dense)
        deciding = LayerByLayer(
            layers,
            masks,
            dense,
            self.fits,
            weights,
            self.config,
            self.solver,
            self.seed,
            self.share,
            store,
            progress=self.progress,
            stop=self.stop,
            before=before,
            stored=stored,
            crew=self.crew,
        )
        one_by_one = self.config.curvature.inputs == "pruned"
        groups = shared.groups(plain) if one_by_one else shared.bunches(plain, len(between))
        for activations in between:
            taps = shared.open(groups) if activations.both else []
            activations.enter(chain, dense, taps)
        stages = partial(
            block_stages,
            block=chain,
            shared=shared,
            between=between,
            dense=dense,
            weights=weights,
            per_input=self.config.curvature.positions,
        )
        deciding.decide(stages(groups=groups))
        unseen = self._unseen(chain, experts, dense, weights, between)
        few = {u.layer for u in unseen}
        seen = [x for x in experts if x.name not in few]
        if seen:
            apart = between[0].both
            groups = _expert_groups(seen, shared, len(between))
            deciding.decide(stages(groups=groups, apart=apart))
        last = [x for x in experts if x.name in few]
        for layer in last:
            deciding.leave(layer)
        if tunes_windows(self.config):
            deciding.tune(chain, [activations.window() for activations in between])
        for activations in between:
            activations.leave(chain, dense, weights)
        return PrunedBlock((*plain, *seen, *last), deciding.result, weights, tuple(unseen))

    def _first_masks(
        self,
        state: WeightState,
        chain: ChainBlock,
        dense: Mapping[str, Tensor],
        between: Sequence[Activations],
    ) -> dict[str, Tensor]:
        """The best-scoring weights of every budget, parameter name -> mask; by magnitude where an
        expert saw too few tokens."""
        method = self.config.initial.method
        score: npt.NDArray[np.floating]
        if method == "random":
            score = np.random.default_rng(self.first_seed.spawn(1)[0]).random(state.n)
        elif method in ("auto", "wanda"):
            score = scores_by_norms(state, self._norms(chain, dense, between[: self.fits]))
        else:
            score = np.abs(state.dense)
        state.mask = mask_by_scores(state, score, make_budgets(state, self.config), self.config)
        return state.masks()

    def _norms(
        self, chain: ChainBlock, dense: Mapping[str, Tensor], between: Sequence[Activations]
    ) -> dict[str, Tensor]:
        """Root mean square of every input of every layer that saw enough, in the dense block."""
        weights, total = chain.own(dense), sum(self.samples)

        def passes() -> Iterator[tuple[float, Feed]]:
            for activations, n in zip(between, self.samples, strict=True):
                calls = activations.dense or activations.pruned
                for share, call in zip(activations.shares, calls, strict=True):
                    forward = partial(call.run, chain.module, weights)
                    yield share * n / total, partial(tapped, chain.layers, forward)

        with torch.no_grad(), untouched(chain.module):
            sums = sum_squares(passes(), self.config.curvature.positions)
        return {
            name: (squares / n).sqrt()
            for name, (squares, n) in sums.items()
            if n >= self.floor or not name.startswith(self.experts)
        }

    def _unseen(
        self,
        chain: ChainBlock,
        experts: Sequence[PrunableLayer],
        dense: Mapping[str, Tensor],
        weights: Mapping[str, Tensor],
        between: Sequence[Activations],
    ) -> list[Unseen]:
        """Experts' layers with fewer tokens than the floor in a set to fit, or none in another."""
        if not experts:
            return []
        least: dict[str, int] = {}
        for number, activations in enumerate(between):
            form = weights if activations.pruned else dense
            tokens = _tokens(chain, experts, form, activations.pruned or activations.dense)
            floor = self.floor if number < self.fits else 1
            for layer in experts:
                seen = tokens.get(layer.name, 0)
                if seen < floor:
                    least[layer.name] = min(seen, least.get(layer.name, seen))
        return [Unseen(name, tokens) for name, tokens in least.items()]


def pass_through(name: str, block: nn.Module, between: Sequence[Activations]) -> None:
    """Go on to the next block: this one stays as it is."""
    chain = ChainBlock(name, block, ())
    for activations in between:
        activations.enter(chain, {}, [])
        activations.leave(chain, {}, {})


def _rooted(name: str, block: nn.Module) -> nn.Module:
    """A module in which the block has the name that it has in the model."""
    root = nn.Module()
    at, *parts = [root, *name.split(".")]
    for part in parts[:-1]:
        inner = nn.Module()
        at.add_module(part, inner)
        at = inner
    at.add_module(parts[-1], block)
    return root


def _in_order(
    chain: ChainBlock,
    layers: Sequence[PrunableLayer],
    weights: Mapping[str, Tensor],
    calls: Sequence[Call],
    names: Sequence[str],
) -> list[PrunableLayer]:
    """First ``names``, as they have run already, then as they run on the first of ``calls``; those
    that never run raise when their moments are taken."""
    named = {layer.name: layer for layer in layers}
    ran = {name: named[name] for name in names if name in named}

    def visit(layer: PrunableLayer, module: nn.Module, key: CallKey, x: Tensor) -> None:
        ran.setdefault(layer.name, layer)

    with torch.no_grad(), untouched(chain.module):
        for call in calls:
            if len(ran) == len(layers):
                break
            tapped(layers, partial(call.run, chain.module, chain.own(weights)), visit)
    return [*ran.values(), *(x for x in layers if x.name not in ran)]


def _tokens(
    chain: ChainBlock,
    layers: Sequence[PrunableLayer],
    weights: Mapping[str, Tensor],
    calls: Sequence[Call],
) -> dict[str, int]:
    """Layer name -> tokens that it saw."""
    seen: dict[str, int] = {}

    def visit(layer: PrunableLayer, module: nn.Module, key: CallKey, x: Tensor) -> None:
        seen[layer.name] = seen.get(layer.name, 0) + x.numel() // max(1, x.shape[-1])

    with torch.no_grad(), untouched(chain.module):
        for call in calls:
            tapped(layers, partial(call.run, chain.module, chain.own(weights)), visit)
    return seen


def _expert_groups(
    experts: Sequence[PrunableLayer], shared: SharedInputs, sets: int
) -> list[tuple[PrunableLayer, ...]]:
    """First what the experts are called with, then what they make of it; as many at once as fit."""
    inner = [x for x in experts if not x.name.endswith("down_proj")]
    outer = [x for x in experts if x.name.endswith("down_proj")]
    return [*shared.bunches(inner, sets), *shared.bunches(outer, sets)]
