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
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from optiprune.problems.files.atomic import replacing

from .grid import Density
from .methods import Kind
from .summary import WALL, Entry, Quantity, in_order, metric_of

__all__ = ["draw_all"]

_COLOURS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#8c6d31")
_OURS = ("#0072B2", "#000000", "#5e3c99", "#1b7837")
_MARKERS = "os^vDP<>X*hd"
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
        styles = {k: _styles([e for e in mine if e.kind == k]) for k in kinds}
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


def _styles(of_kind: Sequence[Entry]) -> dict[str, dict[str, Any]]:
    """A colour and marker for each method; a method and its refit share a colour."""
    ours = sorted({e.method for e in of_kind if e.source == "optiprune"})
    others = sorted({e.method for e in of_kind if e.source != "optiprune"})
    families = list(dict.fromkeys(m.removesuffix("+refit") for m in others))
    styles: dict[str, dict[str, Any]] = {}
    for i, method in enumerate(ours):
        styles[method] = {
            "color": _OURS[i % len(_OURS)],
            "marker": "*o^s"[i % 4],
            "linewidth": 2.0,
            "markersize": 8 if i % 4 == 0 else 5,
            "zorder": 5,
        }
    for method in others:
        i = families.index(method.removesuffix("+refit"))
        styles[method] = {
            "color": _COLOURS[i % len(_COLOURS)],
            "marker": _MARKERS[i % len(_MARKERS)],
            "linewidth": 1.0,
            "markersize": 4,
            "linestyle": "--" if method.endswith("+refit") else "-",
            "markerfacecolor": "white" if method.endswith("+refit") else None,
            "zorder": 3,
        }
    return {m: {k: v for k, v in s.items() if v is not None} for m, s in styles.items()}


def _by_density(
    figure: Figure,
    of_model: Sequence[Entry],
    kinds: Sequence[Kind],
    styles: dict[Kind, dict[str, dict[str, Any]]],
) -> None:
    densities = in_order(e.density for e in of_model)
    place = {d: i for i, d in enumerate(densities)}
    plain = [d for d in densities if Density.parse(d).pattern is None]
    metric = metric_of(of_model)
    first = None
    for at, kind in enumerate(kinds):
        axes = first = figure.add_subplot(1, len(kinds), at + 1, sharey=first)
        for method, style in styles[kind].items():
            mine = {e.density: e for e in of_model if (e.kind, e.method) == (kind, method)}
            line = {d: _value(mine[d], metric) for d in plain if d in mine}
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


def _by_time(
    figure: Figure,
    here: Sequence[Entry],
    kinds: Sequence[Kind],
    styles: dict[Kind, dict[str, dict[str, Any]]],
    density: str,
) -> None:
    metric = metric_of(here)
    first = None
    for at, kind in enumerate(kinds):
        axes = first = figure.add_subplot(1, len(kinds), at + 1, sharey=first, sharex=first)
        for method, style in styles[kind].items():
            entry = next((e for e in here if (e.kind, e.method) == (kind, method)), None)
            if entry is not None:
                x, y = max(entry.median(WALL), 1e-3), _value(entry, metric)
                axes.plot([x], [y], label=method, **{**style, "linestyle": "none"})
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("wall time of the method (s)")
        _finish(axes, at, here, metric, f"{_TITLES[kind]}, density {density}")


def _value(entry: Entry, metric: Quantity) -> float:
    value = entry.median(metric)
    return 100 * value if metric.percent else value


def _finish(axes: Any, at: int, of_model: Sequence[Entry], metric: Quantity, title: str) -> None:
    dense = [r["dense"][r["metric"]] for e in of_model for r in e.good.values()]
    level = sorted(dense)[len(dense) // 2] * (100 if metric.percent else 1)
    axes.axhline(level, color="black", linewidth=0.8, linestyle=":", label="dense")
    if not metric.higher_is_better:
        axes.set_yscale("log")
        values = [_value(e, metric) for e in of_model]
        top = max((v for v in values if math.isfinite(v)), default=level)
        axes.set_ylim(0.9 * level, min(1.2 * top, _MOST * level))
    axes.set_title(title)
    if at == 0:
        axes.set_ylabel(metric.label)
    else:
        axes.tick_params(labelleft=False)
    axes.grid(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
