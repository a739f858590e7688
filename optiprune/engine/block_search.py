"""Masks of whole blocks for one layer, with or without re-fitted weights.

The rows of a band (a row of tiles) share their mask. Without refit a band is a binary quadratic
over its tiles, for the solver: the rows' quadratics, summed. With refit it is exchanges of tiles at
the costs that re-fitted weights leave, see `optiprune.patterns.exchange_blocks`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from optiprune.config import BatchOptions
from optiprune.curvature.layers import LayerError, PrunableLayer
from optiprune.patterns import Block, exchange_blocks
from optiprune.refit import RefitResult
from optiprune.solvers import Solver, Status, Stop

from .joint_search import LEAST_DAMPING, JointSearch
from .row_blocks import ROUNDING, Judged
from .row_solving import RowAnswer, RowTask, Task, solve_rows

__all__ = ["BLOCK_EXCHANGES", "BlockSearch", "check_block_mask", "whole_blocks", "within_blocks"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Seeds = Callable[[int], np.random.SeedSequence]
# in place of a solver's name in the history: tiles are exchanged without one
BLOCK_EXCHANGES = "block-exchanges"


@dataclass(frozen=True, slots=True, eq=False)
class BandTask:
    """Bands without refit: the best tiles for the dense values, by the solver.

    Attributes
    ----------
    H : (groups, cols, cols) float64, Gram matrices
    b, w : (rows, cols) float64, targets Cŵ and dense weights
    """

    H: Floats
    b: Floats
    w: Floats
    block: Block
    options: BatchOptions
    solver: Solver
    stop: Stop | None

    def solve(
        self, row: int, mask: Bools, visited: Bools, seed: np.random.SeedSequence
    ) -> RowAnswer | None:
        """The answer for the band that begins with this row; None for its other rows."""
        if row % self.block.rows:
            return None
        width = self.block.cols
        band = slice(row, row + self.block.rows)
        w = self.w[band]
        tiles = mask.size // width
        H = self.H[row * self.H.shape[0] // self.w.shape[0]] * (w.T @ w)
        H = H.reshape(tiles, width, tiles, width).sum((1, 3))
        linear = (self.b[band] * w).sum(0).reshape(tiles, width).sum(1)
        task = RowTask(
            H=((H + H.T) / 2).astype(np.float32)[None],
            b=linear[None],
            w=np.ones((1, tiles)),
            pattern=None,
            options=self.options,
            solver=self.solver,
            stop=self.stop,
        )
        answer = task.solve(0, mask[::width], visited[::width], seed)
        if answer is None:
            return None
        return _in_weights(answer, row, width)


@dataclass(frozen=True, slots=True, eq=False)
class RefittedBandTask:
    """Bands whose weights are re-fitted: exchanges of tiles.

    Attributes
    ----------
    H : (groups, cols, cols) float64, damped Gram matrices
    b : (rows, cols) float64, targets with what damping adds to them
    steps : exchanges of a band, at most
    """

    H: Floats
    b: Floats
    block: Block
    steps: int

    def solve(
        self, row: int, mask: Bools, visited: Bools, seed: np.random.SeedSequence
    ) -> RowAnswer | None:
        """The answer for the band that begins with this row; None for its other rows."""
        if row % self.block.rows or not mask.any() or mask.all():
            return None
        start = time.perf_counter()
        width = self.block.cols
        H = self.H[row * self.H.shape[0] // self.b.shape[0]]
        b = self.b[row : row + self.block.rows]
        kept, change, _ = exchange_blocks(H, b, mask[::width], width, self.steps)
        answer = RowAnswer(
            row=row,
            mask=kept,
            index=np.arange(kept.size),
            predicted=change,
            solver=BLOCK_EXCHANGES,
            status=Status.FEASIBLE,
            gap=None,
            seconds=time.perf_counter() - start,
        )
        return _in_weights(answer, row, width)


def _in_weights(answer: RowAnswer, row: int, width: int) -> RowAnswer:
    """An answer over tiles as one over the weights of a row."""
    return RowAnswer(
        row=row,
        mask=np.repeat(answer.mask, width),
        index=(answer.index[:, None] * width + np.arange(width)).reshape(-1),
        predicted=answer.predicted,
        solver=answer.solver,
        status=answer.status,
        gap=answer.gap,
        seconds=answer.seconds,
    )


class BlockSearch(JointSearch):
    """The mask of one layer in whole blocks, and its values: re-fitted, or as they were.

    Attributes are those of `JointSearch`. A row's new mask stays only with that of its band.
    """

    def _refit(self, mask: Tensor) -> RefitResult:
        if self.config.prune.refit:
            return super()._refit(mask)
        values = torch.where(mask, self.w, 0.0)
        error = self.gram.error(values, self.w)
        none = torch.zeros(len(mask), dtype=torch.bool, device=mask.device)
        return RefitResult(values, error, error, torch.zeros_like(error), none, none)

    def search(
        self, solver: Solver, stop: Stop | None, seeds: Callable[[int], Seeds], block: Block
    ) -> list[tuple[Judged, float]]:
        """Rounds over the bands, until one changes nothing; each with its seconds.

        ``seeds`` gives each round the seeds of its rows.
        """
        config = self.config
        if config.prune.refit:
            rounds = int(config.joint.enabled and config.joint.sweeps > 0)
            H, b = (x.cpu().numpy() for x in self._damped(LEAST_DAMPING))
            # a sweep may move every tile once
            steps = config.joint.sweeps * self.gram.cols // block.cols
            task: Task = RefittedBandTask(H, b, block, steps)
        else:
            rounds = config.batches.sweeps
            H, b = self.gram.H.cpu().numpy(), self.b.cpu().numpy()
            task = BandTask(H, b, self.w.cpu().numpy(), block, config.batches, solver, stop)
        out = []
        visited = np.zeros(tuple(self.mask.shape), dtype=bool)
        for number in range(rounds):
            began = time.perf_counter()
            before = self.mask.cpu().numpy()
            with threadpool_limits(1, user_api="blas"):
                answers = list(solve_rows(task, before, visited, seeds(number), config.workers))
            judged = self._judge(answers, before, block)
            for a in answers:
                if a is not None:
                    visited[a.row : a.row + block.rows, a.index] = True
            out.append((judged, time.perf_counter() - began))
            if not judged.good.any():
                break
        return out

    def _judge(self, answers: list[RowAnswer | None], before: Bools, block: Block) -> Judged:
        proposed = before.copy()
        for a in answers:
            if a is not None:
                proposed[a.row : a.row + block.rows] = a.mask
        differs = (proposed != before).any(1)
        mask = torch.from_numpy(proposed).to(self.mask.device)
        fit = self._refit(mask)

        def by_band(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            return np.repeat(x.reshape(-1, block.rows).sum(1), block.rows)

        train = (fit.error_after - self.fit.error_after).cpu().numpy()
        good = differs & (by_band(train) < -ROUNDING * by_band(self.energy.cpu().numpy()))
        holdout = None
        if self.held is not None:
            holdout = (self._judged(fit) - self._judged(self.fit)).cpu().numpy()
            good &= by_band(holdout) <= self.config.accept.tolerance
        self._take(torch.from_numpy(good).to(self.mask.device), mask, fit)
        flips = (proposed != before).sum(1)
        return Judged(answers, differs, good, flips, train, holdout)


def within_blocks(score: Tensor, like: Tensor, by_band: bool, block: Block) -> Tensor:
    """The tiles of the highest sums of squares, as many as ``like`` keeps: of a band, or in all.

    Parameters
    ----------
    score, like : (rows, cols), ``like`` bool and in whole tiles
    """
    rows, cols = like.shape
    shape = (rows // block.rows, block.rows, cols // block.cols, block.cols)
    norms = score.square().reshape(shape).sum((1, 3))
    kept = like.reshape(shape)[:, 0, :, 0]
    if not by_band:
        norms, kept = norms.reshape(1, -1), kept.reshape(1, -1)
    order = torch.argsort(norms, dim=1, descending=True, stable=True)
    rank = torch.empty_like(order)
    rank.scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
    chosen = (rank < kept.sum(1)[:, None]).reshape(shape[0], 1, shape[2], 1)
    return chosen.expand(shape).reshape(rows, cols)


def whole_blocks(score: npt.NDArray[np.floating], rows: int, cols: int, block: Block) -> Floats:
    """A score of every weight, equal within each tile and different between any two.

    Parameters
    ----------
    score : (rows * cols,); a tile's is the sum of its weights' squares, ties go to the first

    Returns
    -------
    (rows * cols,) float64, ranks: positive where the tile's score is not zero
    """
    shape = (rows // block.rows, block.rows, cols // block.cols, block.cols)
    # finite scores of any size: their squares must not overflow
    top = float(np.abs(score).max(initial=0.0)) or 1.0
    sums = np.square(score / top).reshape(shape).sum((1, 3))
    rank = np.empty(sums.size)
    first = np.argsort(-sums.reshape(-1), kind="stable")
    rank[first] = np.count_nonzero(sums) - np.arange(sums.size, dtype=np.float64)
    tiles = rank.reshape(shape[0], 1, shape[2], 1)
    return np.asarray(np.broadcast_to(tiles, shape).reshape(-1))


def check_block_mask(layer: PrunableLayer, mask: Bools, block: Block | None) -> None:
    """Raise `LayerError` unless the mask, (rows, cols), keeps and prunes whole tiles."""
    if block is None:
        return
    if (layer.rows // layer.groups) % block.rows or layer.cols % block.cols:
        raise LayerError(
            f"layer '{layer.name}' is {layer.rows} x {layer.cols} (in {layer.groups} groups), "
            f"which {block} does not fill; exclude the layer"
        )
    shape = (layer.rows // block.rows, block.rows, layer.cols // block.cols, block.cols)
    counts = mask.reshape(shape).sum((1, 3))
    wrong = np.argwhere((counts != 0) & (counts != block.numel))
    if len(wrong):
        band, tile = wrong[0]
        raise LayerError(
            f"layer '{layer.name}': the first mask keeps {counts[band, tile]} of the {block.numel} "
            f"weights of the tile at row {band * block.rows}, column {tile * block.cols}, but the "
            f"pattern is {block}"
        )
