"""Density of every layer, and its error on the way."""

from __future__ import annotations

import math
from collections.abc import Sequence

from optiprune.engine.result import LayerReport
from optiprune.report.charts.plot import Plot, PlotArea
from optiprune.report.charts.scale import Scale
from optiprune.report.document import Section, cells, table
from optiprune.report.numbers import count, number, percent
from optiprune.report.run_data import RunData

__all__ = ["density_section", "error_section", "layer_axis"]

_STAGES = (("after the search", "masked", 0), ("after the refit", "refit", 1))


def density_section(run: RunData, key: str) -> Section | None:
    """How many weights each layer kept."""
    layers = run.layers
    if not layers:
        return None
    rows = [
        cells(
            x.name, "×".join(map(str, x.shape)), count(x.kept), count(x.total), percent(x.density)
        )
        for x in layers
    ]
    columns = ("layer", "shape", "kept", "of", "density")
    listed = table("Weights kept in every layer", columns, rows, long=len(rows) > 40)
    return Section(key, "Density per layer", plots=(_densities(layers),), tables=(listed,))


def _densities(layers: Sequence[LayerReport]) -> Plot:
    area = PlotArea(layer_axis(len(layers)), _shares([x.density for x in layers]))
    half = min(0.4, 0.044 * len(layers))  # a few layers do not need wide bars
    for i, layer in enumerate(layers):
        tip = f"{layer.name}: {percent(layer.density).text}"
        area.bar(i + 1 - half, i + 1 + half, layer.density, 0, tip)
    whole = sum(x.kept for x in layers) / sum(x.total for x in layers)
    area.line([(area.across.low, whole), (area.across.high, whole)], -1, dashed=True)
    area.legend += [("layer", 0, "bar"), (f"all together: {percent(whole).text}", -1, "dashed")]
    most, least = max(layers, key=lambda x: x.density), min(layers, key=lambda x: x.density)
    text = f"{len(layers)} layers in the order of the model."
    if percent(most.density).text != percent(least.density).text:
        text += f" The densest is {most.name} with {percent(most.density).text}, the sparsest "
        text += f"{least.name} with {percent(least.density).text}."
    return area.plot("Share of weights kept in every layer", text, "layer", "density")


def error_section(run: RunData, key: str) -> Section | None:
    """What the search and the refit made of every layer's error (reconstruction)."""
    layers = [x for x in run.layers if x.error_masked is not None]
    if not layers:
        return None
    held = any(x.holdout_masked is not None for x in layers)
    first = any(x.error_initial is not None for x in layers)
    columns = ["layer", *(["first mask"] if first else []), "after search", "after refit"]
    columns += ["held out: first mask", "held out: search", "held out: refit"] if held else []
    rows = []
    for x in layers:
        errors = [x.error_initial] if first else []
        errors += [x.error_masked, x.error_refit]
        errors += [x.holdout_initial, x.holdout_masked, x.holdout_refit] if held else []
        rows.append(cells(x.name, *(number(e) for e in errors), number(x.damping, 2)))
    listed = table(
        "Squared distance of a layer's output to that of the dense layer, a position, summed over "
        "outputs; damping of the refit relative to the mean diagonal",
        (*columns, "damping"),
        rows,
        long=len(rows) > 40,
    )
    plots = (_errors(layers, held),) if first else ()
    paragraphs = (
        "The error is that of the layer's output, on the samples that decided and on samples that "
        "did not. Where the two lie far apart, the layer was fitted to its samples: more samples "
        "or more damping help.",
    )
    return Section(key, "Error per layer", paragraphs if held else (), plots, tables=(listed,))


def _errors(layers: Sequence[LayerReport], held: bool) -> Plot:
    points: list[tuple[int, float, int, bool, str]] = []
    for i, x in enumerate(layers, 1):
        for label, stage, series in _STAGES:
            for kind, hollow in (("error", False), ("holdout", True)):
                first, value = getattr(x, f"{kind}_initial"), getattr(x, f"{kind}_{stage}")
                if first and value is not None and value > 0 and math.isfinite(value / first):
                    which = "held-out samples" if hollow else "samples that decided"
                    tip = f"{x.name}, {label}, {which}: {number(value / first, 3).text}"
                    points.append((i, value / first, series, hollow, tip))
    area = PlotArea(layer_axis(len(layers)), Scale.log([1.0, *(p[1] for p in points)]))
    area.line([(area.across.low, 1.0), (area.across.high, 1.0)], -1, dashed=True)
    area.legend.append(("first mask", -1, "dashed"))
    for x_place, ratio, series, hollow, tip in points:
        area.dot(x_place, ratio, series, tip, hollow=hollow)
    for label, _, series in _STAGES:
        for hollow in (False, True) if held else (False,):
            if any(p[2] == series and p[3] == hollow for p in points):
                told = f"{label}, held out" if hollow else label
                area.legend.append((told, series, "hollow" if hollow else "dot"))
    finals = [p[1] for p in points if p[2] == max(q[2] for q in points)]
    text = f"{len(layers)} layers in the order in which they stand in the table."
    if finals:
        text += f" In the end the ratios lie between {number(min(finals), 3).text} and "
        text += f"{number(max(finals), 3).text}."
    title = "Error of every layer's output, relative to the first mask"
    return area.plot(title, text, "layer", "error / first mask's")


def layer_axis(n: int) -> Scale:
    """Layers 1 to n, with at most some ten numbers below."""
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**6) if n / s <= 12)
    ticks = [1, *range(step, n + 1, step)] if step > 1 else range(1, n + 1)
    return Scale(0.5, n + 0.5, tuple((float(i), str(i)) for i in dict.fromkeys(ticks)))


def _shares(values: Sequence[float]) -> Scale:
    scale = Scale.linear(values, zero=True)
    return Scale(scale.low, scale.high, tuple((v, percent(v, 0).text) for v, _ in scale.ticks))
