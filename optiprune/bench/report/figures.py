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

from optiprune.bench.statistics import GapCurve, Run, SummaryRow, gap_curves, performance_profile
from optiprune.durable import replacing

from .contents import Report
from .legend import Legend

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
_MOST_SPREAD = 1.2
_MARKERS = "osD^vPX<>*"
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
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
Curves = dict[int, dict[str, GapCurve]]


def draw_all(report: Report, folder: Path) -> list[Path]:
    """Draw every figure for each budget and mode into ``folder/figures``; returns the paths."""
    target = folder / "figures"
    target.mkdir(parents=True, exist_ok=True)
    solvers = list(dict.fromkeys(row.solver for row in report.rows))
    styles = _styles(solvers)
    written: list[Path] = []
    for budget, mode in sorted({(r.budget, r.mode) for r in report.runs}):
        runs = [r for r in report.runs if (r.budget, r.mode) == (budget, mode)]
        rows = [r for r in report.rows if (r.budget, r.mode) == (budget, mode)]
        sizes = sorted({r.n for r in runs})
        present = [s for s in solvers if any(r.solver == s for r in rows)]
        end = _suffix(budget, mode)
        one = 3.5, 2.2
        with _saved(target, f"profile{end}", written, *one, present) as (figure, legend):
            _profile(figure, legend, runs, styles, report.target_gap)
        with _saved(target, f"time-to-target{end}", written, *one, present) as (figure, legend):
            _times(figure, legend, rows, sizes, styles, report.target_gap)
        curves = {n: gap_curves([r for r in runs if r.n == n]) for n in sizes}
        labels = {s: _told(s, curves) for s in present}
        grid = _grid_size(len(sizes))
        told = list(labels.values())
        with _saved(target, f"gap-over-time{end}", written, *grid, told) as (figure, legend):
            _curves(figure, legend, curves, styles, labels)
    return written


def _suffix(budget: float, mode: str) -> str:
    """``-1s`` of a file's name; another for each budget, however little they differ."""
    short = f"{budget:g}"
    number = short if float(short) == budget else repr(budget)
    return ("" if mode == "fill" else f"-{mode}") + f"-{number}s"


def _styles(solvers: Sequence[str]) -> Styles:
    return {
        s: {"color": _COLOURS[i % len(_COLOURS)], "linestyle": _DASHES[i % len(_DASHES)]}
        for i, s in enumerate(solvers)
    }


@contextmanager
def _saved(
    folder: Path,
    stem: str,
    written: list[Path],
    width: float,
    height: float,
    labels: Sequence[str],
) -> Iterator[tuple[Figure, Legend]]:
    """A figure whose axes have so many inches, and the legend below them what it needs."""
    with matplotlib.rc_context(_STYLE):
        legend = Legend.of(labels, width)
        figure = Figure(figsize=(width, height + legend.height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, legend
        for kind in ("png", "svg"):
            path = folder / f"{stem}.{kind}"
            # without a date, the same figure is the same file
            how = {"dpi": 300} if kind == "png" else {"metadata": {"Date": None}}
            with replacing(path) as temporary:
                figure.savefig(temporary, format=kind, **how)
            written.append(path)


def _goal(target_gap: float) -> str:
    return "best known" if target_gap == 0 else f"{100 * target_gap:g} % of best known"


def _profile(
    figure: Figure, legend: Legend, runs: Sequence[Run], styles: Styles, target_gap: float
) -> None:
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
    _finish(figure, legend, [axes])


def _times(
    figure: Figure,
    legend: Legend,
    rows: Sequence[SummaryRow],
    sizes: Sequence[int],
    styles: Styles,
    target_gap: float,
) -> None:
    axes = figure.add_subplot()
    count = len(styles)
    # side by side, so that intervals do not cover one another, and each by its own size
    shift = min(1.02, _MOST_SPREAD ** (1 / count))
    ends = [v for r in rows for v in (r.ttt.value, r.ttt.high) if math.isfinite(v)]
    top = 4 * max(ends, default=1.0)
    missed = False
    for at, (solver, style) in enumerate(styles.items()):
        points = [r for r in rows if r.solver == solver]
        if not points:
            continue
        points.sort(key=lambda r: r.n)
        x = np.array([r.n * shift ** (at - (count - 1) / 2) for r in points])
        # an end that is not met goes as far as the picture
        y, low, high = (
            # as in the tables: no interval from two runs of an instance
            np.array([min(getattr(r.ttt, end if r.seeds > 2 else "value"), top) for r in points])
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
        # the upper median: of two instances both are needed
        axes.set_title("hollow: met on half of the instances or fewer", fontsize=7)
    axes.set_xscale("log")
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.minorticks_off()
    axes.set_xlim(0.8 * sizes[0], 1.25 * sizes[-1])
    axes.set_xlabel("variables")
    axes.set_ylabel(f"TTT99 to {_goal(target_gap)} [s]")
    _finish(figure, legend, [axes])


def _grid_size(panels: int) -> tuple[float, float]:
    columns = min(3, panels)
    return (3.5 if columns == 1 else 2.4 * columns), 2.3 * -(-panels // columns)


def _told(solver: str, curves: Curves) -> str:
    """A solver in the legend; one that has no line for a size is not left out without a word."""
    asked = [n for n, of in curves.items() if solver in of]
    unseen = [str(n) for n in asked if not np.isfinite(curves[n][solver].median).any()]
    return f"{solver} (mostly no answer: n = {', '.join(unseen)})" if unseen else solver


def _curves(
    figure: Figure, legend: Legend, curves: Curves, styles: Styles, labels: dict[str, str]
) -> None:
    columns = min(3, len(curves))
    lines = -(-len(curves) // columns)
    panels: list[Any] = []
    times = [c.seconds for of in curves.values() for c in of.values()]
    for at, (n, of) in enumerate(curves.items()):
        # one range for all, so that panels can be compared
        first = panels[0] if panels else None
        axes = figure.add_subplot(lines, columns, at + 1, sharex=first, sharey=first)
        for solver, style in styles.items():
            if solver not in of:
                continue
            c = of[solver]
            seen = np.isfinite(c.median)
            # an incumbent holds until the next one
            median = 100 * c.median[seen]
            axes.step(c.seconds[seen], median, where="post", label=labels[solver], **style)
            if len(of) > _MOST_BANDS:  # they would cover one another
                continue
            band = seen & np.isfinite(c.high)
            low, high = 100 * c.low[band], 100 * c.high[band]
            shade = {"color": style["color"], "alpha": 0.12, "linewidth": 0, "step": "post"}
            axes.fill_between(c.seconds[band], low, high, **shade)
        axes.set_xscale("log")
        # told, since a logarithmic axis cannot find its range without a line
        axes.set_xlim(min(t[0] for t in times), max(t[-1] for t in times))
        # zero is a place on this axis, and differences down to 1e-4 % are seen
        axes.set_yscale("symlog", linthresh=1e-3)
        axes.set_ylim(bottom=-1e-4)
        axes.set_title(f"n = {n}")
        axes.tick_params(labelleft=at % columns == 0)
        if at % columns == 0:
            axes.set_ylabel("gap to best known [%]")
        if at + columns >= len(curves):
            axes.set_xlabel("CPU time [s]")
        panels.append(axes)
    _finish(figure, legend, panels)


def _finish(figure: Figure, legend: Legend, panels: Sequence[Any]) -> None:
    found: dict[str, Any] = {}
    for axes in panels:
        axes.grid(True)
        axes.spines[["top", "right"]].set_visible(False)
        handles, labels = axes.get_legend_handles_labels()
        found.update(zip(labels, handles, strict=True))
    legend.draw(figure, found)
