"""The report of a results folder: quality.md, the contests, and figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from optiprune.durable import replacing

from .summary import Entry, entries
from .tables import contest_lines, failure_lines, model_lines

__all__ = ["REPORT", "report_text", "write_report"]

REPORT = "quality.md"


def report_text(records: Sequence[dict[str, Any]]) -> str:
    """All tables as Markdown. Raises ValueError for records that cannot be put together."""
    found = entries(records)
    lines = [
        "# Quality of pruned models",
        "",
        "Medians over seeds, with the smallest and the largest; the best of a column is bold. "
        "Methods that choose masks alone and methods that move weights are never in one table. "
        "Layer error: squared error of all pruned layers' outputs on inputs that no method has "
        "seen, over the energy of the dense outputs. Memory: the peak while the method runs, minus "
        "what model and data took before.",
        "",
        *_contents(found),
        *contest_lines(found),
    ]
    for model in dict.fromkeys(e.model for e in found):
        lines += model_lines([e for e in found if e.model == model])
    lines += [*failure_lines(found), *_methods(records), *_machines(records)]
    return "\n".join(lines).rstrip() + "\n"


def write_report(
    records: Sequence[dict[str, Any]],
    out: Path,
    *,
    plots: bool = True,
    note: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Write ``quality.md`` and the figures into ``out``; returns the paths.

    Without matplotlib ``note`` is told, and the tables are written all the same.
    """
    text = report_text(records)
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / REPORT) as temporary:
        temporary.write_text(text)
    written = [out / REPORT]
    if plots:
        try:
            from .plots import draw_all
        except ImportError:
            note("figures need matplotlib: pip install 'optiprune[plot]'")
        else:
            written += draw_all(entries(records), out)
    return written


def _contents(found: Sequence[Entry]) -> list[str]:
    cells = sum(len(e.good) + len(e.bad) for e in found)
    bad = sum(len(e.bad) for e in found)
    failed = f", {bad} of which failed" if bad else ""
    return [f"{cells} cells{failed}.", ""]


def _methods(records: Sequence[dict[str, Any]]) -> list[str]:
    lines = ["## Methods", "", "| method | kind | from |", "|---|---|---|"]
    seen = {r["method"]: r for r in records}
    for name, r in sorted(seen.items()):
        options = "; ".join(f"{k} = {v}" for k, v in r.get("options", {}).items())
        origin = r.get("reference") or ("optiprune" if r.get("source") == "optiprune" else "")
        refit = " + least-squares refit" if r.get("refit") else ""
        told = f"{origin}{refit}{', ' if options else ''}{options}".replace("|", "\\|")
        lines.append(f"| `{name}` | {r['kind']} | {told} |")
    return [*lines, ""]


def _machines(records: Sequence[dict[str, Any]]) -> list[str]:
    lines = ["## Machine", ""]
    for name in ("machine", "python", "versions", "revision", "threads"):
        values = sorted({str(r[name]) for r in records if name in r})
        if values:
            lines.append(f"- {name}: {'; '.join(values)}")
    if len({r.get("revision") for r in records}) > 1:
        lines.append("- Cells come from several revisions of the code.")
    return [*lines, ""]
