"""The picture of the demo: accuracy by method, and where on the image the kept weights look."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from optiprune.durable import replacing

from .demo_methods import MethodResult

__all__ = ["draw"]


def draw(rows: Sequence[MethodResult], path: Path) -> None:
    """Write a PNG: bars of test accuracy above, the first layer's masks below.

    Uses no pyplot: no global state, no window, whatever the user's back end is.
    """
    figure = Figure(figsize=(2.2 * len(rows), 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, len(rows), height_ratios=[1.4, 1.0])

    bars = figure.add_subplot(grid[0, :])
    colors = ["0.6", *["tab:orange"] * (len(rows) - 3), "tab:blue", "tab:blue"][: len(rows)]
    drawn = bars.bar([r.name for r in rows], [100 * r.accuracy for r in rows], color=colors)
    bars.bar_label(drawn, fmt="%.1f", padding=2)
    bars.set_ylabel("test accuracy, %")
    bars.set_ylim(0, 108)
    bars.set_title(f"scikit-learn digits, pruned to {rows[-1].density:.0%} of the weights")
    bars.spines[["top", "right"]].set_visible(False)

    top = max(float(r.kept_per_pixel.max()) for r in rows[1:])
    for column, row in enumerate(rows):
        image = figure.add_subplot(grid[1, column])
        shown = image.imshow(row.kept_per_pixel, vmin=0.0, vmax=top, cmap="viridis")
        image.set_xticks([])
        image.set_yticks([])
        image.set_title(row.name, fontsize=9)
        if column == len(rows) - 1:
            figure.colorbar(shown, ax=image, label="share kept, by pixel", shrink=0.9)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
