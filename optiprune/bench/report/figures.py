"""Figures for a paper: profiles, gap over time, time to target by size; as PNG and SVG.

Single-column width, no pyplot (no global state, no window). Colours are those of Okabe & Ito, which
are told apart by the colour-blind, each with a line style and marker of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from optiprune.bench.statistics import Run, gap_curves, performance_profile
from optiprune.problems.files.atomic import replacing

from .contents import Report

__all__ = ["draw_all"]

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1, 1)),
    (0, (5, 1, 1, 1)),
    (0, (3, 1, 1, 1, 1, 1)),
)
_MOST_BANDS = 4
_MARKERS = "osD^vPX<>*"
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "grid.linewidth": 0.4,
    "grid.alpha": 0.35,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "optiprune",  # the same data give the same file
}

Styles = dict[str, dict[str, Any]]


def draw_all(report: Report, folder: Path) -> list[Path]:
    """Draw every figure for each budget into ``folder/figures``; returns the paths."""
    target = folder / "figures"
    target.mkdir(parents=True, exist_ok=True)
    solvers = list(dict.fromkeys(row.solver for row in report.rows))
    styles = _styles(solvers)
    written: list[Path] = []
    for budget in sorted({r.budget for r in report.runs}):
        runs = [r for r in report.runs if r.budget == budget]
        end = f"-{budget:g}s"
        with _saved(target, f"profile{end}", written, 3.5, 2.7) as figure:
            _profile(figure, runs, styles, report.target_gap)
        with _saved(target, f"time-to-target{end}", written, 3.5, 2.7) as figure:
            _times(figure, report, budget, styles)
        sizes = sorted({r.n for r in runs})
        with _saved(target, f"gap-over-time{end}", written, *_grid_size(len(sizes))) as figure:
            _curves(figure, runs, sizes, styles)
    return written


def _styles(solvers: Sequence[str]) -> Styles:
    return {
        s: {"color": _COLOURS[i % len(_COLOURS)], "linestyle": _DASHES[i % len(_DASHES)]}
        for i, s in enumerate(solvers)
    }


@contextmanager
def _saved(
    folder: Path, stem: str, written: list[Path], width: float, height: float
) -> Iterator[Figure]:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        for kind in ("png", "svg"):
            path = folder / f"{stem}.{kind}"
            # without a date, the same figure is the same file
            how = {"dpi": 300} if kind == "png" else {"metadata": {"Date": None}}
            with replacing(path) as temporary:
                figure.savefig(temporary, format=kind, **how)
            written.append(path)


def _goal(target_gap: float) -> str:
    return "best known" if target_gap == 0 else f"{100 * target_gap:g} % of best known"


def _profile(figure: Figure, runs: Sequence[Run], styles: Styles, target_gap: float) -> None:
    axes = figure.add_subplot()
    profile = performance_profile(runs)
    ends = [float(x[-1]) for x, _ in profile.values() if len(x) > 1]
    end = max(10.0, 1.6 * max(ends, default=1.0))
    for solver in styles:
        if solver in profile:
            x, y = profile[solver]
            axes.step([*x, end], [*y, y[-1]], where="post", label=solver, **styles[solver])
    axes.set_xscale("log")
    axes.set_xlim(1, end)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(f"time to {_goal(target_gap)}, relative to the fastest solver")
    axes.set_ylabel("share of instances")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    _finish(figure, [axes])


def _times(figure: Figure, report: Report, budget: float, styles: Styles) -> None:
    axes = figure.add_subplot()
    rows = [r for r in report.rows if r.budget == budget]
    sizes = sorted({r.n for r in rows})
    count = len(styles)
    ends = [v for r in rows for v in (r.ttt.value, r.ttt.high) if math.isfinite(v)]
    top = 4 * max(ends, default=1.0)
    missed = False
    for at, (solver, style) in enumerate(styles.items()):
        points = [r for r in rows if r.solver == solver]
        points.sort(key=lambda r: r.n)
        # side by side, so that intervals do not cover one another
        x = np.array([r.n * 1.02 ** (at - (count - 1) / 2) for r in points])
        # an end that is not met goes as far as the picture
        y, low, high = (
            np.array([min(getattr(r.ttt, end), top) for r in points])
            for end in ("value", "low", "high")
        )
        met = np.array([math.isfinite(r.ttt.value) for r in points], dtype=bool)
        axes.errorbar(
            x,
            np.where(met, y, np.nan),
            yerr=[np.where(met, y - low, 0.0), np.where(met, high - y, 0.0)],
            marker=_MARKERS[at % len(_MARKERS)],
            markersize=3.5,
            elinewidth=0.7,
            capsize=1.5,
            label=solver,
            **style,
        )
        # a solver that does not meet the target must not look as if it had not been asked
        missed = missed or not met.all()
        axes.plot(
            x[~met],
            np.full(int((~met).sum()), 0.8 * top),
            linestyle="none",
            marker=_MARKERS[at % len(_MARKERS)],
            markersize=3.5,
            markerfacecolor="none",
            color=style["color"],
        )
    axes.set_yscale("log")
    axes.set_ylim(top=top)
    if missed:
        axes.set_title("hollow, at the top: not met on half of the instances", fontsize=7)
    axes.set_xscale("log")
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.minorticks_off()
    axes.set_xlim(0.8 * sizes[0], 1.25 * sizes[-1])
    axes.set_xlabel("variables")
    axes.set_ylabel(f"TTT99 to {_goal(report.target_gap)} [s]")
    _finish(figure, [axes])


def _grid_size(panels: int) -> tuple[float, float]:
    columns = min(3, panels)
    return (3.5 if columns == 1 else 2.4 * columns), 2.3 * -(-panels // columns) + 0.6


def _curves(figure: Figure, runs: Sequence[Run], sizes: Sequence[int], styles: Styles) -> None:
    columns = min(3, len(sizes))
    lines = -(-len(sizes) // columns)
    panels = []
    for at, n in enumerate(sizes):
        axes = figure.add_subplot(lines, columns, at + 1)
        curves = gap_curves([r for r in runs if r.n == n])
        for solver, style in styles.items():
            if solver not in curves:
                continue
            c = curves[solver]
            seen = np.isfinite(c.median)
            if not seen.any():
                continue
            axes.plot(c.seconds[seen], 100 * c.median[seen], label=solver, **style)
            if len(curves) > _MOST_BANDS:  # they would cover one another
                continue
            band = seen & np.isfinite(c.high)
            low, high = 100 * c.low[band], 100 * c.high[band]
            shade = {"color": style["color"], "alpha": 0.12, "linewidth": 0}
            axes.fill_between(c.seconds[band], low, high, **shade)
        axes.set_xscale("log")
        # zero is a place on this axis, and differences down to 1e-4 % are seen
        axes.set_yscale("symlog", linthresh=1e-3)
        axes.set_ylim(bottom=-1e-4)
        axes.set_title(f"n = {n}")
        if at % columns == 0:
            axes.set_ylabel("gap to best known [%]")
        if at + columns >= len(sizes):
            axes.set_xlabel("CPU time [s]")
        panels.append(axes)
    _finish(figure, panels)


def _finish(figure: Figure, panels: Sequence[Any]) -> None:
    found: dict[str, Any] = {}
    for axes in panels:
        axes.grid(True)
        axes.spines[["top", "right"]].set_visible(False)
        handles, labels = axes.get_legend_handles_labels()
        found.update(zip(labels, handles, strict=True))
    if found:
        columns = max(1, min(4 if len(panels) > 1 else 2, len(found)))
        figure.legend(
            list(found.values()),
            list(found),
            loc="outside lower center",
            ncols=columns,
            frameon=False,
        )
