"""The first mask of a run, and the budgets where an allocation is to find them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from torch import nn

from optiprune.config import Config
from optiprune.curvature import CalibrationSet

from .allocating import Allocation, first_by_counts
from .allocation_report import AllocationReport
from .block_search import whole_blocks
from .budgets import Budgets, block_of, make_budgets, scope_of
from .initial import best_per_group, first_scores, nonzero_mask, require_connected
from .objective import GlobalLoss
from .state import WeightState
from .steps import StepStore

__all__ = ["First", "FirstMask", "mask_by_scores"]

_ALLOCATION = "allocation"


@dataclass(frozen=True, slots=True, eq=False)
class First:
    """What `FirstMask.find` returns.

    Attributes
    ----------
    score : (P,) higher stays
    mask : (P,) bool
    budgets : as they were given, or as allocated
    report : of the allocation; None without one
    """

    score: npt.NDArray[np.floating]
    mask: npt.NDArray[np.bool_]
    budgets: Budgets
    report: AllocationReport | None


@dataclass(frozen=True, slots=True, eq=False)
class FirstMask:
    """All that the first mask of a prepared run follows from.

    Attributes
    ----------
    objective : for the method 'gradient'
    budgets : None where ``allocation`` finds them
    steps : the allocation is kept there, and taken from there if it was
    """

    model: nn.Module
    state: WeightState
    train: CalibrationSet
    config: Config
    objective: GlobalLoss | None
    budgets: Budgets | None
    allocation: Allocation | None
    steps: StepStore

    def find(self, seed: np.random.SeedSequence) -> First:
        """Scores, budgets, and the best-scoring weights of every budget.

        Raises
        ------
        BudgetError, CalibrationError
        """
        config, state = self.config, self.state
        score = first_scores(self.model, state, self.train, config, self.objective, seed)
        budgets, report = self.budgets, None
        if self.allocation is not None:
            report = self._allocated(self.allocation, score)
            counts = {row.name: row.kept for row in report.layers}
            budgets = make_budgets(state, config, counts)
            if scope_of(config) == "global":
                score = first_by_counts(state, score, counts)
        assert budgets is not None
        return First(score, mask_by_scores(state, score, budgets, config), budgets, report)

    def _allocated(
        self, allocation: Allocation, score: npt.NDArray[np.floating]
    ) -> AllocationReport:
        """Measured, or as it was before."""
        found = self.steps.get(_ALLOCATION)
        if found is not None:
            report = AllocationReport.from_dict(found.record)
            allocation.note(report)
            return report
        report = allocation.run(score)
        self.steps.put(_ALLOCATION, {}, asdict(report))
        self.steps.check()
        return report


def mask_by_scores(
    state: WeightState, score: npt.NDArray[np.floating], budgets: Budgets, config: Config
) -> npt.NDArray[np.bool_]:
    """The best-scoring weights of every budget, (P,); in whole tiles where layers keep to them.

    Raises
    ------
    BudgetError
        More is non-zero than a budget allows, with the method 'nonzero'; a layer is left empty.
    """
    if config.initial.method == "nonzero":
        held = _by_block(state, (state.dense != 0).astype(np.float64), config)
        mask = nonzero_mask(state, budgets, held)
    else:
        mask = best_per_group(_by_block(state, score, config), budgets.groups, budgets.kept)
    require_connected(state, mask, config.layers.min_kept)
    return mask


def _by_block(
    state: WeightState, score: npt.NDArray[np.floating], config: Config
) -> npt.NDArray[np.floating]:
    """Scores (P,) that choose whole tiles, in the layers that keep to them."""
    out = score
    for i, layer in enumerate(state.layers):
        block = block_of(layer, config)
        if block is not None:
            out = out.astype(np.float64) if out is score else out
            span = state.span(i)
            out[span] = whole_blocks(score[span], layer.rows, layer.cols, block)
    return out
