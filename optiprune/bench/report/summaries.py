"""From the records of a folder to summary files and figures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from optiprune.bench.instances import BestKnown
from optiprune.bench.records import (
    FILE,
    read_best_known,
    update_best,
    write_best_known,
    write_results,
    write_table,
)
from optiprune.bench.statistics import Run, SummaryRow, runs_of, summarise
from optiprune.problems.files.atomic import replacing

__all__ = ["Report", "make_report", "write_report"]


@dataclass(frozen=True, slots=True)
class Report:
    """All that follows from the records.

    Attributes
    ----------
    faults : claims of solvers that others refuted
    """

    records: list[dict[str, Any]]
    best: dict[str, BestKnown]
    runs: list[Run]
    rows: list[SummaryRow]
    faults: list[str]
    target_gap: float


def make_report(
    records: Sequence[dict[str, Any]],
    known: Mapping[str, BestKnown] | None = None,
    *,
    target_gap: float = 0.0,
) -> Report:
    """Hold the records against the best known answers, those among the records included.

    Parameters
    ----------
    known : by content hash, from before
    target_gap : relative gap at which the target of hit rate and time to target is reached
    """
    best, faults = update_best(known or {}, records)
    runs = runs_of(records, best, target_gap=target_gap)
    return Report(list(records), best, runs, summarise(runs, best), faults, target_gap)


def known_of(folder: Path, instances: Iterable[Any] = ()) -> dict[str, BestKnown]:
    """Best known answers of a results folder and of instances, the better of both."""
    path = folder / FILE
    out = read_best_known(path) if path.exists() else {}
    for i in instances:
        if i.best is not None and (i.sha256 not in out or i.best.energy < out[i.sha256].energy):
            out[i.sha256] = i.best
    return out


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
