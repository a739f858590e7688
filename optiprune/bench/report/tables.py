"""The summary as tables for the terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator

from rich.markup import escape
from rich.table import Table

from optiprune.bench.statistics import Estimate, SummaryRow

from .contents import Report

__all__ = ["seconds", "summary_tables"]


_COLUMNS = (
    "runs", "mean\ngap", "worst\ngap", "runs\nhit", "instances\nhit", "TTT99 [95 %]", "CPU\na run",
    "notes",
)  # fmt: skip
_LONGEST_MESSAGE = 60


def summary_tables(report: Report) -> Iterator[Table]:
    """One table for each budget, size and mode, the best solver first."""
    groups: dict[tuple[float, int, str], list[SummaryRow]] = {}
    for row in report.rows:
        groups.setdefault((row.budget, row.n, row.mode), []).append(row)
    for (budget, n, mode), rows in groups.items():
        count = max(r.instances for r in rows)
        closed = max(r.closed for r in rows)
        title = f"n = {n}, {budget:g} s{_rules(mode)}: {count} instances"
        title += f", {closed} of them with a proven optimum" if closed else ""
        table = Table(title=title, title_justify="left")
        table.add_column("solver", overflow="fold")
        for name in _COLUMNS:
            if name == "notes":
                table.add_column(name, overflow="fold")
            else:
                table.add_column(name, justify="right", no_wrap=True)
        for r in rows:
            table.add_row(
                escape(r.solver),
                str(r.runs),
                percent(r.mean_gap),
                percent(r.worst_gap),
                f"{100 * r.hit_rate:.0f} %",
                f"{r.solved}/{r.instances}",
                # of two runs of an instance nobody knows how they vary
                interval(r.ttt) if r.seeds > 2 else seconds(r.ttt.value),
                seconds(r.cpu_s),
                escape(_notes(r)),
            )
        yield table


def _rules(mode: str) -> str:
    """What is not as by default, in words."""
    start, _, target = mode.partition("+")
    words = [", one start"] if start == "once" else []
    return "".join([*words, ", to the best known"] if target else words)


def _notes(r: SummaryRow) -> str:
    notes = []
    if r.proven:
        notes.append(f"{r.proven} proven")
    if r.errors:
        why = textwrap.shorten(r.message, _LONGEST_MESSAGE, placeholder=" ...")
        notes.append(f"{r.errors} errors" + (f" ({why})" if why else ""))
    if r.answered < 1 and r.errors < r.runs:
        notes.append(f"{100 * r.answered:.0f} % answered in time")
    if r.overran:
        notes.append(f"{r.overran} over time")
    return ", ".join(notes)


def interval(e: Estimate) -> str:
    """``12 ms [9.1 ms, 20 ms]``, or a dash where the target was not met."""
    if not math.isfinite(e.value):
        return "-"
    return f"{seconds(e.value)} \\[{seconds(e.low)}, {seconds(e.high)}]"


def seconds(t: float) -> str:
    """Seconds with two digits and a fitting unit: ``1.2 s``, ``870 ms``, ``0.35 ms``."""
    if not math.isfinite(t):
        return "-"
    value, unit = (t, "s") if t >= 1 else (1e3 * t, "ms")
    digits = 2 if value < 1 else 1 if value < 10 else 0
    return f"{value:.{digits}f} {unit}"


def percent(gap: float) -> str:
    """A gap in percent; what is not zero does not look like it."""
    if not math.isfinite(gap):
        return "-"
    if gap == 0:
        return "0 %"
    if gap < 5e-6:
        return f"{100 * gap:.0e} %"
    return f"{100 * gap:.3g} %"
