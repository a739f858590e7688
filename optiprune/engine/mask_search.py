"""The mask of one layer whose kept weights keep their values: batches of every row, in sweeps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from optiprune.config import Config
from optiprune.curvature.gram import LayerGram
from optiprune.curvature.layers import PrunableLayer
from optiprune.solvers import Solver, Stop

from .budgets import pattern_of
from .row_blocks import ROUNDING, Judged
from .row_solving import RowAnswer, RowTask, solve_rows

__all__ = ["MaskSearch", "Round"]

Bools = npt.NDArray[np.bool_]
# (sweep, turn) -> row -> its seed
Seeds = Callable[[int, int], Callable[[int], np.random.SeedSequence]]


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """One batch of every row, judged."""

    sweep: int
    turn: int
    judged: Judged
    seconds: float


class MaskSearch:
    """Sweeps over the rows of a layer.

    Attributes
    ----------
    mask : (rows, cols) bool, with the accepted answers of the rounds so far
    sweep, row : where it is
    """

    def __init__(
        self,
        layer: PrunableLayer,
        gram: LayerGram,
        held: LayerGram | None,
        w: Tensor,
        first: Tensor,
        config: Config,
        solver: Solver,
        stop: Stop | None,
    ) -> None:
        self.layer, self.gram, self.held, self.w, self.config = layer, gram, held, w, config
        self.mask: Bools = first.reshape(w.shape).cpu().numpy().copy()
        self.sweep, self.row = 0, 0
        self._task = RowTask(
            H=gram.H.to(torch.float32).cpu().numpy(),
            b=gram.cross(w).cpu().numpy(),
            w=w.cpu().numpy(),
            pattern=pattern_of(layer, config),
            options=config.batches,
            solver=solver,
            stop=stop,
        )

    def rounds(self, seeds: Seeds) -> Iterator[Round]:
        """All rounds, until a sweep changes nothing."""
        options = self.config.batches
        turns = -(-self.layer.cols // options.size)
        for sweep in range(options.sweeps):
            self.sweep = sweep
            visited = np.zeros_like(self.mask)
            changed = 0
            for turn in range(turns):
                began = time.perf_counter()
                answers = self._solve(visited, seeds(sweep, turn))
                judged = self._accept(answers, visited)
                changed += int(judged.good.sum())
                yield Round(sweep, turn, judged, time.perf_counter() - began)
            if not changed:
                break

    def _solve(
        self, visited: Bools, seeds: Callable[[int], np.random.SeedSequence]
    ) -> list[RowAnswer | None]:
        answers: list[RowAnswer | None] = []
        solved = solve_rows(self._task, self.mask, visited, seeds, self.config.workers)
        for row in range(self.layer.rows):
            self.row = row
            answers.append(next(solved))
        return answers

    def _accept(self, answers: Sequence[RowAnswer | None], visited: Bools) -> Judged:
        """Measure the answers and write the good ones to the mask."""
        mask, w = self.mask, self.w
        proposed = mask.copy()
        for a in answers:
            if a is not None:
                proposed[a.row] = a.mask
                visited[a.row, a.index] = True
        differs = (proposed != mask).any(1)

        def change(g: LayerGram) -> npt.NDArray[np.float64]:
            new, old = (
                torch.where(torch.from_numpy(m).to(w.device), w, 0.0) for m in (proposed, mask)
            )
            return (g.error(new, w) - g.error(old, w)).cpu().numpy()

        on_train = change(self.gram)
        floor = ROUNDING * self.gram.target_energy(w).cpu().numpy()
        good = differs & (on_train < -floor)
        on_holdout = None if self.held is None else change(self.held)
        if on_holdout is not None:
            good &= on_holdout <= self.config.accept.tolerance
        flips = (proposed != mask).sum(1)
        mask[good] = proposed[good]
        return Judged(answers, differs, good, flips, on_train, on_holdout)
