"""Several runs side by side: what differed, what came out, layer by layer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from optiprune.masks import MaskError, MaskReader
from optiprune.report.charts.plot import Plot, PlotArea
from optiprune.report.charts.scale import Scale
from optiprune.report.document import Cell, Section, cells, table
from optiprune.report.numbers import change, count, duration, number, percent
from optiprune.report.run_data import RunData

from .layers import layer_axis
from .summary import promise

__all__ = ["comparison_sections"]

# with more runs, each is a row
_SIDE_BY_SIDE = 4
_STATES = {"finished": "finished", "stopped": "stopped early", "unfinished": "not finished"}


def comparison_sections(runs: Sequence[RunData]) -> tuple[Section, ...]:
    """At least two runs, the first of which the others are held against."""
    found = [_results(runs), _options(runs), _layers(runs), _agreement(runs)]
    return tuple(section for section in found if section is not None)


def _results(runs: Sequence[RunData]) -> Section:
    scores = sorted({name for run in runs for name in (*run.dense, *run.pruned)})
    losses = [n for n in ("loss_dense", "loss_initial", "loss_final") if _any_loss(runs, n)]
    columns = ["what", "state", "density", *scores, *(n.replace("_", ", ") for n in losses)]
    columns += ["predicted", "measured", "steps", "stayed", "solver", "time"]
    rows = []
    for run in runs:
        kept = promise(run)
        rows.append(
            cells(
                run.name,
                _STATES[run.state],
                percent(run.kept / run.total if run.total else None, 2),
                *(number(run.pruned.get(name)) for name in scores),
                *(number(getattr(run.report, name, None)) for name in losses),
                change(None if kept is None else kept[0]),
                change(None if kept is None else kept[1]),
                count(len(run.history)),
                count(sum(r.accepted for r in run.history)),
                None if run.report is None else run.report.solver,
                duration(run.seconds),
            )
        )
    caption = "Results; predicted and measured are sums of changes, as in the run's own part"
    if len(runs) <= _SIDE_BY_SIDE:
        head, *body = zip(cells(*columns), *rows, strict=True)
        listed = table(caption, [cell.text for cell in head], body, sorts=False)
    else:
        listed = table(caption, columns, rows)
    paragraphs = []
    if len({_conditions(run) for run in runs}) > 1:
        paragraphs.append(
            "Objective, sparsity or refit differ between these runs: losses and errors are those "
            "of different problems."
        )
    return Section("compare-results", "Results side by side", tuple(paragraphs), tables=(listed,))


def _any_loss(runs: Sequence[RunData], name: str) -> bool:
    return any(getattr(run.report, name, None) is not None for run in runs)


def _conditions(run: RunData) -> tuple[Any, ...]:
    prune = run.config.get("prune", {})
    refit = prune.get("refit") if isinstance(prune, Mapping) else None
    return run.objective, run.sparsity_asked, refit


def _options(runs: Sequence[RunData]) -> Section:
    flat = [dict(_flat(run.config)) for run in runs]
    keys = dict.fromkeys(key for table_ in flat for key in table_ if key != "output.dir")
    rows = [
        cells(key, *(Cell(t.get(key), t.get(key, "–")) for t in flat))
        for key in keys
        if len({t.get(key) for t in flat}) > 1
    ]
    key, title = "compare-options", "Options that differ"
    if not rows:
        return Section(key, title, ("All options of these runs are the same.",))
    columns = ("option", *(run.name for run in runs))
    listed = table("Options that are not the same in all runs", columns, rows)
    return Section(key, title, tables=(listed,))


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value, default=str, ensure_ascii=False)


def _layers(runs: Sequence[RunData]) -> Section | None:
    names = _names(runs)
    if not names:
        return None
    by_name = [{x.name: x for x in run.layers} for run in runs]
    errors = any(x.error_masked is not None for run in runs for x in run.layers)
    columns = ["layer", *(f"density, {run.name}" for run in runs)]
    columns += [f"error, {run.name}" for run in runs] if errors else []
    rows = []
    for name in names:
        found = [layers.get(name) for layers in by_name]
        row: list[Any] = [percent(None if x is None else x.density) for x in found]
        if errors:
            last = [
                None if x is None else x.error_masked if x.error_refit is None else x.error_refit
                for x in found
            ]
            row += [number(e) for e in last]
        rows.append(cells(name, *row))
    caption = "Density of every layer, and the error of its output in the end"
    listed = table(
        caption if errors else "Density of every layer", columns, rows, long=len(rows) > 40
    )
    return Section(
        "compare-layers",
        "Layers side by side",
        plots=(_densities(runs, names, by_name),),
        tables=(listed,),
    )


def _names(runs: Sequence[RunData]) -> list[str]:
    return list(dict.fromkeys(x.name for run in runs for x in run.layers))


def _densities(
    runs: Sequence[RunData], names: Sequence[str], by_name: Sequence[Mapping[str, Any]]
) -> Plot:
    values = [x.density for run in runs for x in run.layers]
    scale = Scale.linear(values, zero=True)
    ticks = tuple((v, percent(v, 0).text) for v, _ in scale.ticks)
    area = PlotArea(layer_axis(len(names)), Scale(scale.low, scale.high, ticks))
    apart = 0.5 / max(1, len(runs) - 1)
    for k, (run, layers) in enumerate(zip(runs, by_name, strict=True)):
        for i, name in enumerate(names, 1):
            if name in layers:
                density = layers[name].density
                tip = f"{name}, {run.name}: {percent(density).text}"
                area.dot(i - 0.25 + k * apart, density, k, tip)
        area.legend.append((run.name, k, "dot"))
    text = f"{len(names)} layers in the order of the model, {len(runs)} runs."
    return area.plot("Share of weights kept in every layer", text, "layer", "density")


def _agreement(runs: Sequence[RunData]) -> Section | None:
    """How far masks are the same as those of the first run: shares of kept weights in common."""
    first, *others = runs
    if first.masks is None or all(run.masks is None for run in others):
        return None
    columns = ["layer", *(f"common with {first.name}: {run.name}" for run in others)]
    shown = {x.parameter: x.name for x in first.layers}
    rows = []
    try:
        with ExitStack() as stack:
            base = stack.enter_context(MaskReader.open(first.masks))
            readers = [
                None if run.masks is None else stack.enter_context(MaskReader.open(run.masks))
                for run in others
            ]
            for name in base.names:
                mask = base.mask(name)
                shares: list[float | None] = []
                for reader in readers:
                    other = reader.mask(name) if reader and name in reader.names else None
                    if other is None or other.shape != mask.shape:
                        shares.append(None)
                        continue
                    either = int((mask | other).sum())
                    shares.append(int((mask & other).sum()) / either if either else 1.0)
                rows.append(cells(shown.get(name, name), *(percent(s) for s in shares)))
    except (MaskError, OSError):
        return None  # the run's own part says which file it is
    caption = "Weights that both runs keep, of those that one of them keeps at least"
    listed = table(caption, columns, rows, long=len(rows) > 40)
    text = "100 % is the same mask. Two masks that have nothing to do with one another have "
    text += "d / (2 − d) in common at density d: 33 % at 50 %, 5 % at 10 %."
    return Section("compare-masks", "Agreement of the masks", (text,), tables=(listed,))
