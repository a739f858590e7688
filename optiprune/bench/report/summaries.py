"""From a report to summary files and figures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from optiprune.bench.records import FILE, write_best_known, write_results, write_table
from optiprune.bench.statistics import SummaryRow
from optiprune.durable import replacing

from .contents import Report

__all__ = ["write_report"]


def write_report(
    report: Report,
    folder: Path,
    *,
    plots: bool = True,
    note: Callable[[str], None] = print,
) -> list[Path]:
    """Write results, summary, best known answers, and figures where matplotlib is installed.

    Every file is whole or not there. Returns the paths.
    """
    names = {r["sha256"]: r["instance"] for r in report.records if r["type"] == "solve"}
    written = write_results(folder, report.records)
    rows = [_flat(row) for row in report.rows]
    if rows:
        written.append(write_table(folder / "summary.csv", tuple(rows[0]), rows))
    sessions = [r for r in report.records if r["type"] == "session"]
    summary = {
        "target_gap": report.target_gap,
        "sessions": sessions,
        "faults": report.faults,
        "rows": rows,
    }
    with replacing(folder / "summary.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n")
    written.append(folder / "summary.json")
    write_best_known(folder / FILE, report.best, names)
    written.append(folder / FILE)
    if not report.runs or not plots:
        return written
    if find_spec("matplotlib") is None:
        note("no figures: they need matplotlib; install it with: pip install 'optiprune[plot]'")
        return written
    from .figures import draw_all

    return written + draw_all(report, folder)


def _flat(row: SummaryRow) -> dict[str, Any]:
    """A row with columns instead of an estimate, and None where there is no number."""
    table = asdict(row)
    estimate = table.pop("ttt")
    for key, name in (("value", "ttt99_s"), ("low", "ttt99_low_s"), ("high", "ttt99_high_s")):
        table[name] = estimate[key]
    return {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in table.items()
    }
