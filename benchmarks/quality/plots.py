"""Figures: the metric against the density, and against the time that it took.

One figure a model and view, with a panel for each kind of method. No pyplot. Colours are those of
Okabe & Ito, which are told apart by the colour-blind; optiprune's methods are drawn thick.
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
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from optiprune.durable import replacing

from .grid import Density
from .methods import DEFAULTS, Kind
from .summary import WALL, Entry, Quantity, in_order, metric_of

__all__ = ["draw_all"]

_COLOURS = (
    *("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#8c6d31"),
    *("#882255", "#332288", "#999933", "#661100"),
)
_OURS = ("#0072B2", "#000000", "#5e3c99", "#1b7837")
_MARKERS = "os^vDP<>X*hd"
Styles = dict[str, dict[str, Any]]
_TITLES: dict[Kind, str] = {"mask": "mask only", "weights": "weights moved"}
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 6.5,
    "axes.linewidth": 0.6,
    "grid.linewidth": 0.4,
    "grid.alpha": 0.35,
    "svg.fonttype": "none",
    "svg.hashsalt": "optiprune",
}
# a metric that is worse than this many times the dense one's only stretches the axis
_MOST = 30.0


def draw_all(of_all: Sequence[Entry], out: Path) -> list[Path]:
    """Every figure into ``out/figures``, as PNG and SVG; returns the paths."""
    folder = out / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for model in dict.fromkeys(e.model for e in of_all):
        mine = [e for e in of_all if e.model == model and e.good]
        if not mine:
            continue
        kinds = [k for k in _TITLES if any(e.kind == k for e in mine)]
        styles = _styles(mine)
        stem = "".join(c if c.isalnum() or c in "-_." else "-" for c in model)
        size = (4.2 * len(kinds), 4.4)
        with _saved(folder, f"{stem}-density", written, size) as figure:
            _by_density(figure, mine, kinds, styles)
        for density in in_order(e.density for e in mine):
            here = [e for e in mine if e.density == density]
            present = [k for k in kinds if any(e.kind == k for e in here)]
            name = f"{stem}-time-{density.replace(':', 'of')}"
            size = (4.2 * len(present), 4.4)
            with _saved(folder, name, written, size) as figure:
                _by_time(figure, here, present, styles, density)
    return written


@contextmanager
def _saved(
    folder: Path, stem: str, written: list[Path], size: tuple[float, float]
) -> Iterator[Figure]:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        for kind in ("png", "svg"):
            path = folder / f"{stem}.{kind}"
            how = {"dpi": 200} if kind == "png" else {"metadata": {"Date": None}}
            with replacing(path) as temporary:
                figure.savefig(temporary, format=kind, **how)
            written.append(path)


def _styles(of_model: Sequence[Entry]) -> Styles:
    """How each method is drawn, the same in every panel of a model: our defaults as stars, a
    baseline and its refit in one colour, the refit hollow and dashed."""
    ours = sorted({e.method for e in of_model if e.source == "optiprune"}, key=_default_first)
    others = sorted({e.method for e in of_model if e.source != "optiprune"})
    families = list(dict.fromkeys(m.removesuffix("+refit") for m in others))
    plain = [m for m in ours if m not in DEFAULTS.values()]
    styles: Styles = {}
    for method in ours:
        i = plain.index(method) + 1 if method in plain else 0
        styles[method] = {
            "color": _OURS[i % len(_OURS)],
            "marker": "*" if i == 0 else "pH8"[i % 3],
            "linewidth": 2.0,
            "markersize": 9 if i == 0 else 6,
            "zorder": 5,
        }
    for method in others:
        i = families.index(method.removesuffix("+refit"))
        hollow = method.endswith("+refit")
        styles[method] = {
            "color": _COLOURS[i % len(_COLOURS)],
            "marker": _MARKERS[i % len(_MARKERS)],
            "linewidth": 1.0,
            "markersize": 4,
            "linestyle": "--" if hollow else "-",
            "zorder": 3,
            **({"markerfacecolor": "white"} if hollow else {}),
        }
    return styles


def _default_first(method: str) -> tuple[bool, str]:
    return method not in DEFAULTS.values(), method


def _by_density(
    figure: Figure,
    of_model: Sequence[Entry],
    kinds: Sequence[Kind],
    styles: Styles,
) -> None:
    densities = in_order(e.density for e in of_model)
    place = {d: i for i, d in enumerate(densities)}
    plain = [d for d in densities if Density.parse(d).pattern is None]
    metric = metric_of(of_model)
    first = None
    for at, kind in enumerate(kinds):
        axes = first = figure.add_subplot(1, len(kinds), at + 1, sharey=first)
        for method, style in styles.items():
            mine = {e.density: e for e in of_model if (e.kind, e.method) == (kind, method)}
            if not mine:
                continue
            line = {d: _value(mine[d], metric) for d in plain if d in mine}
            if line:
                axes.plot([place[d] for d in line], list(line.values()), label=method, **style)
            # patterns are densities of their own kind: no line leads to them
            loose = {d: _value(e, metric) for d, e in mine.items() if d not in plain}
            alone = {**style, "linestyle": "none"}
            shown = {} if line else {"label": method}
            axes.plot([place[d] for d in loose], list(loose.values()), **alone, **shown)
        if plain and len(plain) < len(densities):
            axes.axvline(len(plain) - 0.5, color="#bbbbbb", linewidth=0.6)
        axes.set_xticks(range(len(densities)), densities)
        axes.set_xlim(-0.4, len(densities) - 0.6)
        axes.set_xlabel("density")
        _finish(axes, at, of_model, metric, _TITLES[kind])
        if metric.percent:
            _spread_the_top(axes)


def _by_time(
    figure: Figure,
    here: Sequence[Entry],
    kinds: Sequence[Kind],
    styles: Styles,
    density: str,
) -> None:
    metric = metric_of(here)
    first = None
    for at, kind in enumerate(kinds):
        axes = first = figure.add_subplot(1, len(kinds), at + 1, sharey=first, sharex=first)
        for method, style in styles.items():
            entry = next((e for e in here if (e.kind, e.method) == (kind, method)), None)
            if entry is not None:
                x, y = max(entry.median(WALL), 1e-3), _value(entry, metric)
                axes.plot([x], [y], label=method, **{**style, "linestyle": "none"})
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("wall time of the method (s)")
        _finish(axes, at, here, metric, f"{_TITLES[kind]}, density {density}")


def _spread_the_top(axes: Any) -> None:
    """An axis of per cent on which 90 to 99 has as much room as 0 to 90: that of the logarithm of
    what is missing to 100. Methods differ most where they are good."""

    def forward(y: Any) -> Any:
        return -np.log10(np.maximum(100.0 - np.asarray(y, dtype=float), 0.1))

    def back(z: Any) -> Any:
        return 100.0 - 10.0 ** (-np.asarray(z, dtype=float))

    low, high = axes.get_ylim()
    axes.set_yscale("function", functions=(forward, back))
    axes.set_ylim(max(low, 0.0), min(high, 99.8))
    low, high = axes.get_ylim()
    ticks = (0, 20, 40, 60, 70, 80, 85, 90, 92, 94, 95, 96, 97, 98, 99, 99.5)
    shown: list[float] = []
    for t in ticks:
        # no two labels on one another
        apart = not shown or forward(t) - forward(shown[-1]) > 0.045 * (
            forward(high) - forward(low)
        )
        if low <= t <= high and apart:
            shown.append(t)
    axes.set_yticks(shown, [f"{t:g}" for t in shown])
    axes.yaxis.set_minor_locator(NullLocator())


def _value(entry: Entry, metric: Quantity) -> float:
    value = entry.median(metric)
    return 100 * value if metric.percent else value


def _finish(axes: Any, at: int, of_model: Sequence[Entry], metric: Quantity, title: str) -> None:
    dense = [r["dense"][r["metric"]] for e in of_model for r in e.good.values()]
    level = sorted(dense)[len(dense) // 2] * (100 if metric.percent else 1)
    axes.axhline(level, color="black", linewidth=0.8, linestyle=":", label="dense")
    if not metric.higher_is_better:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0, 7.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        values = [_value(e, metric) for e in of_model]
        top = max((v for v in values if math.isfinite(v)), default=level)
        axes.set_ylim(0.9 * level, min(1.2 * top, _MOST * level))
    axes.set_title(title)
    if at == 0:
        axes.set_ylabel(metric.label)
    else:
        axes.tick_params(which="both", labelleft=False)
    axes.grid(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
