"""Tuning of one block of a chain, as soon as its layers are pruned: a window as the target.

A refit knows the output of its own layer; what the layers of a block (attention, MLP, a residual
block) lose together its output shows. The kept weights of the block follow the dense block's output
for a few passes of Adam, on the inputs that the pruned blocks before it give, so that a block also
makes up for what those lost. One block is held at a time, at a cost linear in the depth
(reconstruction of blocks: Li et al. 2021, arXiv:2102.05426; for pruned language models Guo et al.
2024, arXiv:2402.12419).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from optiprune.config import Config, WindowOptions
from optiprune.curvature.chain import Call, ChainBlock, first_tensor
from optiprune.curvature.runner import untouched
from optiprune.curvature.stages import Window

from .masked_adam import TUNED_COPIES, MaskedAdam

__all__ = ["WindowReport", "relative_error", "tune_window", "tunes_windows", "tuning_bytes"]

# what a step holds, in units of its layers' outputs; on blocks of Llama 4 to 5 were measured
_OUTPUTS = 7


@dataclass(frozen=True, slots=True)
class WindowReport:
    """What the tuning of one block did.

    Attributes
    ----------
    block : its name
    before, after : relative error of its output (`relative_error`) on the held-out samples, or on
        those of the tuning if there are none
    kept : the pass that stayed, counted from 1; 0: none
    seconds : wall-clock time
    """

    block: str
    before: float
    after: float
    kept: int
    seconds: float


def relative_error(output: Tensor, target: Tensor) -> Tensor:
    """Squared distance over the target's square, (positions,): one number for each token of a
    sequence (samples, tokens, channels), else one for each sample.

    Relative, since a few positions of a language model are a thousand times larger than the rest
    and what follows normalises each by itself.
    """
    if output.ndim != 3:
        output, target = output.flatten(1), target.flatten(1)
    square = target.square().sum(-1)
    floor = 1e-6 * square.mean() + torch.finfo(square.dtype).tiny
    return ((output - target).square().sum(-1) / (square + floor)).flatten()


def tunes_windows(config: Config) -> bool:
    """Whether blocks are tuned: it takes re-fitted values, and both forms of what a block sees."""
    return bool(config.window.epochs and config.prune.refit and config.curvature.inputs == "pruned")


def tuning_bytes(weights: int, outputs: int) -> int:
    """What the tuning of a block holds beyond its windows, for ``weights`` bytes of its layers and
    ``outputs`` bytes of what they compute in a step."""
    return TUNED_COPIES * weights + _OUTPUTS * outputs


def tune_window(
    block: ChainBlock,
    windows: Sequence[Window],
    weights: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    options: WindowOptions,
    seed: np.random.SeedSequence,
    holdout: Window | None = None,
) -> tuple[dict[str, Tensor], WindowReport]:
    """(the model's parameter name -> tuned weights of the block's layers, what it did).

    Parameters
    ----------
    windows : of the calibration sets to tune on
    weights, masks : parameter name -> masked weights and bool masks
    holdout : what judges the passes; without it the last one stays

    A pass whose error is not finite ends the tuning; what was best until then stays.
    """
    began = time.perf_counter()
    names = list(dict.fromkeys(layer.parameter for layer in block.layers))
    now = {k: weights[k].detach().clone().requires_grad_(True) for k in names}
    kept = {k: masks[k].to(v.device) for k, v in now.items()}
    pieces = [piece for window in windows for piece in _pieces(window, options.batch)]
    judge = [holdout] if holdout is not None else list(windows)
    before = lowest = _error(block, judge, now)
    best, chosen = {k: v.detach().clone() for k, v in now.items()}, 0
    rng = np.random.default_rng(seed)
    steps = _grouped(pieces, options.batch)
    adam = MaskedAdam(now, kept, options.learning_rate, options.epochs * len(steps))
    with untouched(block.module):
        for epoch in range(1, options.epochs + 1):
            for at in rng.permutation(len(steps)):
                _step(block, steps[at], adam)
            error = _error(block, judge, now)
            if not math.isfinite(error):
                break
            if holdout is None or error < lowest:
                lowest, chosen = error, epoch
                best = {k: v.detach().clone() for k, v in now.items()}
    seconds = time.perf_counter() - began
    return best, WindowReport(block.name, before, lowest, chosen, seconds)


Piece = tuple[Call, Tensor]


def _pieces(window: Window, batch: int) -> Iterator[Piece]:
    """Calls with their targets, of no more than ``batch`` samples where a call can be cut."""
    for call, target in zip(window.calls, window.targets, strict=True):
        alone = not call.args and not call.kwargs
        if alone and call.x.ndim and call.x.shape[0] == target.shape[0] > batch:
            parts = zip(call.x.split(batch), target.split(batch), strict=True)
            yield from ((call.at(x), y) for x, y in parts)
        else:
            yield call, target


def _grouped(pieces: Sequence[Piece], batch: int) -> list[list[Piece]]:
    """The pieces of each step: as many as make up ``batch`` samples."""
    steps: list[list[Piece]] = [[]]
    samples = 0
    for piece in pieces:
        if samples and samples + len(piece[1]) > batch:
            steps.append([])
            samples = 0
        steps[-1].append(piece)
        samples += len(piece[1])
    return steps


def _run(block: ChainBlock, call: Call, weights: Mapping[str, Tensor]) -> Tensor:
    out = first_tensor(call.run(block.module, block.own(weights)))
    assert out is not None
    return out


def _step(block: ChainBlock, pieces: Sequence[Piece], adam: MaskedAdam) -> None:
    count = 0
    for call, target in pieces:
        error = relative_error(_run(block, call, adam.weights()), target)
        count += error.numel()
        adam.add(error.sum())
    adam.step(max(1, count))


@torch.no_grad()
def _error(block: ChainBlock, windows: Sequence[Window], now: Mapping[str, Tensor]) -> float:
    """Mean relative error over all positions."""
    weights = {k: v.detach() for k, v in now.items()}
    total, count = 0.0, 0
    with untouched(block.module):
        for window in windows:
            for call, target in zip(window.calls, window.targets, strict=True):
                error = relative_error(_run(block, call, weights), target)
                total += float(error.double().sum())
                count += error.numel()
    return total / max(1, count)
