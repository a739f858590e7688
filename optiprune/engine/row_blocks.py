"""What a round over the rows of a layer promised and gave, in blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from optiprune.solvers.trajectory import thinned_trajectory

from .reconstruction_result import RowBlockRecord
from .row_solving import RowAnswer, largest_gap, worst_status
from .solving import POINTS

__all__ = ["ROUNDING", "Judged", "row_blocks"]

# changes of a row's error below this share of its output energy are rounding
ROUNDING = 1e-12
_BLOCK = 64


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A round over the rows of a layer.

    Attributes
    ----------
    answers : of every row, None where there was nothing to choose
    differs, good : (rows,) bool, rows with another mask proposed, and those of them that stayed
    flips : (rows,) weights whose mask would change
    train, holdout : (rows,) change of the error, measured; None without held-out data
    """

    answers: Sequence[RowAnswer | None]
    differs: npt.NDArray[np.bool_]
    good: npt.NDArray[np.bool_]
    flips: npt.NDArray[np.int64]
    train: npt.NDArray[np.float64]
    holdout: npt.NDArray[np.float64] | None


def row_blocks(
    judged: Judged, layer: str, sweep: int, turn: int, solver: str, wall_s: float
) -> Iterator[RowBlockRecord]:
    """Records of 64 rows each; ``wall_s`` is what the whole round took."""
    count = len(judged.answers)
    for at in range(0, count, _BLOCK):
        rows = slice(at, min(at + _BLOCK, count))
        group = [a for a in judged.answers[rows] if a is not None]
        d, g = judged.differs[rows], judged.good[rows]
        t = judged.train[rows]
        h = None if judged.holdout is None else judged.holdout[rows]
        most = min(group, key=lambda a: a.predicted, default=None)
        yield RowBlockRecord(
            layer=layer,
            first_row=rows.start,
            last_row=rows.stop,
            sweep=sweep,
            round=turn,
            size=sum(a.index.size for a in group),
            kept=sum(int(a.mask[a.index].sum()) for a in group),
            rows_changed=int(d.sum()),
            rows_accepted=int(g.sum()),
            changed=int(judged.flips[rows][g].sum()),
            predicted=float(sum(a.predicted for a in group if judged.differs[a.row])),
            train=float(t[d].sum()),
            holdout=None if h is None else float(h[d].sum()),
            accepted_train=float(t[g].sum()),
            accepted_holdout=None if h is None else float(h[g].sum()),
            solver=group[0].solver if group else solver,
            status=worst_status(group).value,
            gap=largest_gap(group),
            solve_s=float(sum(a.seconds for a in group)),
            wall_s=wall_s * (rows.stop - rows.start) / count,
            trajectory=() if most is None else thinned_trajectory(most.trajectory, POINTS),
        )
