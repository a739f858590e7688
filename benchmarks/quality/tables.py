"""Markdown tables of the quality benchmark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from .methods import DEFAULTS, Kind
from .summary import (
    CPU,
    KL,
    LAYER_ERROR,
    LOSS,
    MEMORY,
    WALL,
    Contest,
    Entry,
    Quantity,
    contests,
    in_order,
    metric_of,
)

__all__ = ["KINDS", "contest_lines", "failure_lines", "model_lines", "table"]

KINDS: dict[Kind, str] = {
    "mask": "mask only: kept weights keep their values",
    "weights": "weights moved: by the method, by a refit, or both",
}


def model_lines(of_model: Sequence[Entry]) -> list[str]:
    """All tables of one model, never one for both kinds."""
    metric = metric_of(of_model)
    lines = [f"## {of_model[0].model}", "", *_dense(of_model), ""]
    for kind, about in KINDS.items():
        mine = [e for e in of_model if e.kind == kind]
        if not mine:
            continue
        lines += [f"### {of_model[0].model}, {about}", ""]
        for quantity in (metric, LOSS, KL, LAYER_ERROR, WALL, CPU, MEMORY):
            title = quantity.label[0].upper() + quantity.label[1:]
            way = "higher" if quantity.higher_is_better else "lower"
            lines += [f"**{title}**, {way} is better", "", *table(mine, quantity), ""]
    return lines


def table(of_kind: Sequence[Entry], quantity: Quantity) -> list[str]:
    """Methods by densities: median over the seeds, smallest and largest; the best bold.

    Times and memory have no bold entry: what is cheapest is not what is best.

    Raises ValueError if there are entries of two kinds.
    """
    kinds = {e.kind for e in of_kind}
    if len(kinds) > 1:
        raise ValueError("mask-only methods and methods that move weights are never in one table")
    densities = in_order(e.density for e in of_kind)
    at = {(e.method, e.density): e for e in of_kind}
    seeds = {d: max(len(e.good) for e in of_kind if e.density == d) for d in densities}
    best = {d: _best([e for e in of_kind if e.density == d], quantity) for d in densities}
    methods = dict.fromkeys(e.method for e in _sorted(of_kind))
    lines = [
        "| method | " + " | ".join(densities) + " |",
        "|---|" + "---:|" * len(densities),
    ]
    for method in methods:
        texts = []
        for d in densities:
            entry = at.get((method, d))
            text = "" if entry is None else _entry(entry, quantity, seeds[d])
            bold = entry is not None and quantity not in (WALL, CPU, MEMORY)
            texts.append(
                f"**{text}**" if bold and entry.good and _is(entry, best[d], quantity) else text
            )
        name = f"`{method}`" + (" (our default)" if method in DEFAULTS.values() else "")
        lines.append(f"| {name} | " + " | ".join(texts) + " |")
    return lines


def contest_lines(of_all: Sequence[Entry]) -> list[str]:
    """Our default against the best baseline of its kind, and the cells that it loses by name."""
    found = contests(of_all)
    lines = ["## Our default against the best baseline of the same kind", ""]
    if not found:
        return [*lines, "No cell holds both our default and a baseline of its kind.", ""]
    for kind, about in KINDS.items():
        mine = [c for c in found if c.kind == kind]
        if not mine:
            continue
        lines += [
            f"### {about[0].upper()}{about[1:]} (`{DEFAULTS[kind]}`)",
            "",
            "| model | density | judged by | ours | best baseline | its value | result | seeds |",
            "|---|---:|---|---:|---|---:|---|---:|",
        ]
        for c in mine:
            show = c.quantity.show
            result = f"**{c.verdict}**" if c.verdict == "lost" else c.verdict
            lines.append(
                f"| {c.model} | {c.density} | {c.quantity.label} | {show(c.ours)} "
                f"| `{c.baseline}` | {show(c.best)} | {result} | {len(c.seeds)} |"
            )
        lines += ["", *_lost(mine), ""]
    return lines


def _lost(of_kind: Sequence[Contest]) -> list[str]:
    lost = [c for c in of_kind if c.verdict == "lost"]
    if not lost:
        return [f"No cell of {len(of_kind)} is lost."]
    lines = [f"Lost, {len(lost)} of {len(of_kind)}:", ""]
    for c in lost:
        ours, best = c.quantity.show(c.ours), c.quantity.show(c.best)
        why = f" ({c.reason})" if c.reason else ""
        lines.append(
            f"- {c.model} at {c.density}, {c.quantity.label}: {ours}, "
            f"`{c.baseline}` has {best}{why}"
        )
    return lines


def failure_lines(of_all: Sequence[Entry]) -> list[str]:
    """What was asked for and not measured, with the reason."""
    bad = [(e, seed, r) for e in of_all for seed, r in sorted(e.bad.items())]
    if not bad:
        return []
    lines = [
        "## Cells that failed",
        "",
        "| model | density | method | seed | status | message |",
        "|---|---:|---|---:|---|---|",
    ]
    for e, seed, r in bad:
        message = " ".join(str(r.get("message", "")).split()).replace("|", "\\|")[:300]
        lines.append(
            f"| {e.model} | {e.density} | `{e.method}` | {seed} | {r['status']} | {message} |"
        )
    return [*lines, ""]


def _dense(of_model: Sequence[Entry]) -> list[str]:
    """The dense model, over the seeds."""
    metric, dense = metric_of(of_model), {}
    for e in of_model:
        for seed, r in e.good.items():
            dense[seed] = r
    if not dense:
        return ["No cell of this model was measured."]
    values = [r["dense"][r["metric"]] for r in dense.values()]
    losses = [r["dense"]["loss"] for r in dense.values()]
    left_out = sorted({name for e in of_model for r in e.good.values() for name in r["left_out"]})
    told = f" Layers that stay dense where a pattern does not fit: {', '.join(left_out)}."
    return [
        f"Dense: {metric.label} {_spread(values, metric)}, loss {_spread(losses, LOSS)}; "
        f"{next(iter(dense.values()))['samples']} calibration samples.{told if left_out else ''}"
    ]


def _entry(entry: Entry, quantity: Quantity, seeds: int) -> str:
    values = entry.values(quantity)
    if not values:
        return "/".join(sorted({r["status"] for r in entry.bad.values()}))
    missing = f" ({len(values)} of {seeds} seeds)" if len(values) < seeds else ""
    return _spread(values, quantity) + missing


def _spread(values: Sequence[float], quantity: Quantity) -> str:
    """Median, and (smallest..largest) where there are several."""
    if any(math.isnan(v) for v in values):
        return "nan"
    ordered = sorted(values)
    half = len(ordered) // 2
    median = ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
    text = quantity.show(median)
    if len(ordered) == 1:
        return text
    return f"{text} ({quantity.show(ordered[0])}..{quantity.show(ordered[-1])})"


def _best(of_density: Iterable[Entry], quantity: Quantity) -> float:
    best = math.nan
    for e in of_density:
        value = e.median(quantity)
        if quantity.better(value, best):
            best = value
    return best


def _is(entry: Entry, best: float, quantity: Quantity) -> bool:
    # what is written alike is bold alike
    return quantity.show(entry.median(quantity)) == quantity.show(best)


def _sorted(of_kind: Sequence[Entry]) -> list[Entry]:
    """Our default, ours, then by name; the same order in every table of a kind."""

    def place(e: Entry) -> tuple[bool, bool, str]:
        return e.method not in DEFAULTS.values(), e.source != "optiprune", e.method

    return sorted(of_kind, key=place)
