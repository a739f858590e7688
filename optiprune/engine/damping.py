"""How strongly a refit holds on to the dense weights: as given, or chosen on samples set apart.

Few positions for many weights let least squares fit what is particular to the calibration data.
With ``refit.damping = "auto"`` a fifth of the samples judges, layer by layer, which damping carries
what was fitted on the rest over to data that it has not seen; the layer is then fitted on all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from optiprune.config import Config
from optiprune.curvature import CalibrationSet
from optiprune.curvature.gram import LayerGram, pooled
from optiprune.refit import refit_rows

__all__ = [
    "CANDIDATES",
    "FALLBACK",
    "choose_damping",
    "fixed_damping",
    "fold",
    "fold_count",
    "sample_rows",
]

# in units of the Gram matrix' mean diagonal
CANDIDATES = (1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3)
# where the samples cannot be parted, or are few enough that every choice would be noise
FALLBACK = 1e-2
_SHARE = 0.2
# rows that stand for all of a layer's, evenly spaced: the best damping varies little between them
_ROWS = 48


def fixed_damping(config: Config) -> float:
    """``refit.damping`` as a number; `FALLBACK` for 'auto' where there is nothing to choose by."""
    damping = config.refit.damping
    return FALLBACK if isinstance(damping, str) else damping


def fold(
    train: CalibrationSet, config: Config, seed: np.random.SeedSequence
) -> list[CalibrationSet]:
    """The samples in two parts, to fit and to judge dampings; in one where none is to be chosen."""
    if fold_count(train, config) == 1:
        return [train]
    # a stream of its own: the search draws the same with any damping
    rng = np.random.default_rng(
        np.random.SeedSequence(entropy=seed.entropy, spawn_key=(*seed.spawn_key, 0, 0, 0, 0, 0))
    )
    return list(train.split(_SHARE, rng))


def fold_count(train: CalibrationSet, config: Config) -> int:
    """Parts that `fold` makes."""
    chosen = config.prune.refit and isinstance(config.refit.damping, str)
    return 2 if chosen and train.units >= 2 else 1


def sample_rows(groups: int, rows: int, most: int) -> Tensor:
    """Indices of about ``most`` rows, evenly spaced, as many of every group; all if there are
    fewer."""
    each = rows // groups
    few = max(1, min(each, most // groups))
    within = torch.linspace(0, each - 1, few, dtype=torch.float64).round().long()
    return (torch.arange(groups)[:, None] * each + within).reshape(-1)


def choose_damping(
    grams: Sequence[LayerGram], w: Tensor, mask: Tensor, config: Config
) -> tuple[LayerGram, float]:
    """(Gram matrices of all samples, damping of the layer's refit).

    Parameters
    ----------
    grams : of the parts of `fold`
    w : (rows, cols) float64, dense weights
    mask : (rows, cols) bool, a support like the one to be re-fitted
    """
    if len(grams) == 1:
        return grams[0], fixed_damping(config)
    fit, judge = grams
    index = sample_rows(fit.groups, len(w), _ROWS).to(w.device)
    rows, kept = w[index], mask[index]
    b, energy, masked = fit.cross(rows), fit.target_energy(rows), torch.where(kept, rows, 0.0)

    def error(damping: float) -> float:
        tolerance = config.refit.tolerance
        values = refit_rows(fit.H, b, energy, kept, masked, damping, tolerance=tolerance).values
        return float(judge.error(values, rows).sum())

    # the strongest of those that tie, as where every weight is kept
    return pooled(fit, judge), min(reversed(CANDIDATES), key=error)
