"""How far weight has gathered around the pivots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from optiprune.training.errors import TrainingError

__all__ = ["Concentration", "plot_concentration", "rank_correlations"]

Concentration = Mapping[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]
"""By group: distances of its units from the pivot, and their norms; `Torque.concentration`."""


def rank_correlations(concentration: Concentration) -> dict[str, float]:
    """Spearman's rank correlation of distance and norm, by group: -1 where every unit has less
    weight than those nearer to the pivot; 0 for groups whose norms are all equal."""
    out = {}
    for name, (distance, norm) in concentration.items():
        flat = np.ptp(norm) == 0 or np.ptp(distance) == 0
        out[name] = 0.0 if flat else float(spearmanr(distance, norm).statistic)
    return out


def plot_concentration(before: Concentration, after: Concentration, path: str | Path) -> None:
    """Draw norm against distance, a panel a group, before and after (needs matplotlib).

    Norms are in shares of the group's largest at that time.

    Raises
    ------
    TrainingError
        The two are not of the same groups, or of none.
    """
    if not before or set(before) != set(after):
        raise TrainingError(
            f"nothing to draw: {len(before)} groups before, {len(after)} after, or others"
        )
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    columns = min(4, len(before))
    rows = -(-len(before) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(2.6 * columns + 0.6, 2.1 * rows + 0.6),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    after_rank = rank_correlations(after)
    for panel, name in zip(axes.flat, before, strict=False):
        for table, style, label in ((before, "o", "before"), (after, "s", "after")):
            distance, norm = table[name]
            share = norm / max(float(norm.max()), np.finfo(float).tiny)
            panel.plot(distance, share, style, markersize=3, alpha=0.7, label=label)
        panel.set_title(f"{name}, rank correlation {after_rank[name]:+.2f}", fontsize=8)
        panel.grid(alpha=0.3)
    for panel in axes.flat[len(before) :]:
        panel.set_visible(False)
    figure.supxlabel("distance from the pivot, as a share of the units")
    figure.supylabel("norm, share of the largest")
    axes.flat[0].legend(fontsize=7)
    figure.savefig(path, dpi=120)
    plt.close(figure)
