"""`permute_channels`: prepare a dense model so that an N:M pattern can keep more of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from optiprune.config import CurvatureOptions
from optiprune.curvature import CalibrationSet, LayerError, PrunableLayer, find_layers
from optiprune.curvature.gram import input_norms, wanda_scores
from optiprune.engine.threads import fixed_threads
from optiprune.patterns import PatternError, parse

from .coupling import Group, find_groups
from .outputs import DenseOutputs
from .reorder import Order, reordered, write
from .report import PermutationReport, PermutedGroup
from .search import kept_score, search_order

__all__ = ["permute_channels"]

# tokens or pixels for each input of a layer that enter its norms
_POSITIONS = CurvatureOptions().positions

Scores = dict[str, npt.NDArray[np.float64]]

_NO_SOURCE = "the output channels of no Linear or Conv2d arrive at it one by one"
_CHANGED = (
    "another order of its channels changes the outputs by {:.1e} of the largest: something else "
    "makes or uses them in their places (heads of attention, channels of the model's input)"
)


def permute_channels(
    model: nn.Module,
    data: Iterable[Any],
    *,
    pattern: str = "2:4",
    include: Sequence[str] | str = ("*",),
    exclude: Sequence[str] | str = (),
    restarts: int = 0,
    samples: int = 32,
    tolerance: float = 1e-4,
    threads: int = 0,
    seed: int = 0,
) -> PermutationReport:
    """Reorder the channels of a dense model, in place, so that N:M can keep more of its weights.

    The input columns of a layer and the output rows of the layers that make these channels are put
    in one new order, with what batch normalisations and depthwise convolutions in between hold for
    each channel. The model computes what it did, up to the rounding of sums taken in another order.
    Call it before `optimize_masks`, with the same pattern, ``include`` and ``exclude``.

    Pool and Yu 2021, "Channel permutations for N:M sparsity" (NeurIPS). The sum of squared Wanda
    scores w_ij^2 E[x_j^2] (Sun et al. 2023, arXiv:2306.11695) that the pattern keeps is raised by
    local search (`search_order`); where several layers read the same channels, each counts by the
    share of its sum.

    Groups are found by following NaN through the model (`find_groups`), then tried: a group whose
    random reordering changes the outputs of the first samples is left out before it is searched.
    In the end the outputs on ``samples`` are compared, and any group that changes them is taken
    back. Optimizer states that belong to the weights are not moved.

    Parameters
    ----------
    model : trained torch model on one device, weights in float32 or float64
    data : calibration data as for `optimize_masks`; targets are not looked at
    pattern : "N:M"
    include, exclude : fnmatch patterns of the layers that will be pruned: their scores count.
        Others are reordered along where they share channels with them.
    restarts : further searches from a shuffled part of the best order; little gain, much time
    samples : random calibration samples whose outputs are compared; fewer if the outputs are large
    tolerance : change of an output that counts as rounding, in units of the largest output
    threads : of torch and BLAS; 0 takes all usable cores
    seed : the one seed >= 0

    Returns
    -------
    PermutationReport : with no group if none was found; ``undo()`` takes it back

    Raises
    ------
    PatternError
        A pattern that is not N:M.
    LayerError
        As `find_layers` (no layer, NaN weights); a layer that the pattern does not divide; weights
        in a float type of less than 32 bits.
    CalibrationError
        As `optimize_masks`; outputs that hold no floats, or values that are not finite.
    ValueError
        ``restarts``, ``samples`` or ``tolerance`` out of range.
    """
    n, m = _parse(pattern)
    _require(restarts >= 0, f"restarts must be 0 or more, got {restarts}")
    _require(samples >= 1, f"samples must be 1 or more, got {samples}")
    _require(tolerance > 0, f"tolerance must be above 0, got {tolerance}")
    _require(seed >= 0, f"seed must be 0 or more, got {seed}")
    layers = find_layers(model, include=_names(include), exclude=_names(exclude))
    _require_ready(model, layers, pattern, m)
    device = next(model.parameters()).device
    whole = CalibrationSet.collect(data, device)
    drawn, tried, searched = np.random.SeedSequence(seed).spawn(3)
    with fixed_threads(threads):
        outputs = DenseOutputs(model, whole.sample(samples, np.random.default_rng(drawn)))
        coupling = find_groups(model, next(whole.batches(1)).inputs)
        wanted = {layer.name: layer for layer in layers}
        reasons = {name: coupling.faults.get(name, _NO_SOURCE) for name in wanted}
        groups = [g for g in coupling.groups if any(name in wanted for name in g.consumers)]
        groups, refused = _tried(model, groups, outputs, tolerance, np.random.default_rng(tried))
        scores = _scores(
            model, [wanted[c] for g in groups for c in g.consumers if c in wanted], whole
        )
        orders = [
            (g, search_order(_own(g, scores), g.channels, n, m, restarts=restarts, seed=child))
            for g, child in zip(groups, searched.spawn(len(groups)), strict=True)
        ]
        kept, changed = _kept(model, orders, outputs, tolerance)
        new = reordered(model, kept)
        change = outputs.change(model, new)
    for group, by in (*refused, *changed):
        reasons.update(dict.fromkeys(group.consumers, _CHANGED.format(by)))
    read = {name for group, _ in kept for name in group.consumers}
    rows = tuple(_row(g, order, _own(g, scores), n, m) for g, order in kept)
    # the only place that writes: on any error before, the model is as it was
    write(model, new)
    left_out = {name: reasons[name] for name in wanted if name not in read}
    return PermutationReport(model, kept, rows, left_out, change)


def _tried(
    model: nn.Module,
    groups: Sequence[Group],
    outputs: DenseOutputs,
    tolerance: float,
    rng: np.random.Generator,
) -> tuple[list[Group], list[tuple[Group, float]]]:
    """Groups that random orders show to be free, and the others with the change of the outputs."""
    free, refused = [], []
    for group in groups:
        order = rng.permutation(group.channels)
        change = outputs.change(model, reordered(model, [(group, order)]), batches=1)
        if change > tolerance:
            refused.append((group, change))
        else:
            free.append(group)
    return free, refused


def _kept(
    model: nn.Module,
    orders: list[tuple[Group, Order]],
    outputs: DenseOutputs,
    tolerance: float,
) -> tuple[list[tuple[Group, Order]], list[tuple[Group, float]]]:
    """Orders that together leave the outputs as they are, and groups that do not."""
    if outputs.change(model, reordered(model, orders)) <= tolerance:
        return orders, []
    kept: list[tuple[Group, Order]] = []
    refused = []
    for pair in orders:
        change = outputs.change(model, reordered(model, [*kept, pair]))
        if change > tolerance:
            refused.append((pair[0], change))
        else:
            kept.append(pair)
    return kept, refused


def _scores(model: nn.Module, layers: list[PrunableLayer], data: CalibrationSet) -> Scores:
    """Squared Wanda scores, (rows, cols) each, as shares of their sum."""
    norms = input_norms(model, layers, data, per_input=_POSITIONS) if layers else {}
    scores = {}
    for layer in layers:
        score = wanda_scores(layer, model.get_parameter(layer.parameter), norms[layer.name])
        squares = score.square().reshape(layer.rows, layer.cols).cpu().numpy()
        scores[layer.name] = squares / (squares.sum() or 1.0)
    return scores


def _own(group: Group, scores: Scores) -> list[npt.NDArray[np.float64]]:
    return [scores[name] for name in group.consumers if name in scores]


def _row(
    group: Group, order: Order, scores: list[npt.NDArray[np.float64]], n: int, m: int
) -> PermutedGroup:
    before, after = (
        sum(kept_score(s, o, n, m) for s in scores) / len(scores)
        for o in (np.arange(group.channels), order)
    )
    return PermutedGroup(
        channels=group.channels,
        producers=group.producers,
        consumers=tuple(group.consumers),
        carriers=tuple(group.carriers),
        before=before,
        after=after,
    )


def _parse(pattern: str) -> tuple[int, int]:
    parsed = parse(pattern)
    if not isinstance(parsed, tuple):
        raise PatternError(
            f"the order of channels matters to patterns N:M such as '2:4' alone, got {pattern!r}"
        )
    return parsed


def _require(right: bool, message: str) -> None:
    if not right:
        raise ValueError(message)


def _require_ready(model: nn.Module, layers: list[PrunableLayer], pattern: str, m: int) -> None:
    for layer in layers:
        if layer.cols % m:
            raise LayerError(
                f"layer '{layer.name}' has {layer.cols} weights a row, which groups of {m} do not "
                f"divide: pattern '{pattern}' does not fit; exclude the layer"
            )
    for name, p in model.named_parameters():
        if p.is_floating_point() and torch.finfo(p.dtype).bits < 32:
            raise LayerError(
                f"parameter '{name}' is {p.dtype}, too coarse to tell another order from another "
                "function; call model.float() first, and convert back afterwards"
            )


def _names(patterns: Sequence[str] | str) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)
