"""Measure the cells of a grid one after the other, each once, and write down every one at once."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from optiprune.bench.machine import describe

from .grid import Cell
from .process import ROOT, run_cell
from .records import FAILED, Journal, encode, latest

__all__ = ["Progress", "run_grid"]


class CellRunner(Protocol):
    """`run_cell`, or what stands for it in a test."""

    def __call__(self, cell: Cell, *, timeout: float, threads: int) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Progress:
    """Told before and after each cell; ``record`` is None before it.

    Attributes
    ----------
    done, total : cells of this run that are finished, and all of them
    """

    done: int
    total: int
    cell: Cell
    record: dict[str, Any] | None


def run_grid(
    cells: Sequence[Cell],
    out: Path,
    *,
    timeout: float = 3600.0,
    threads: int = 1,
    retry_failed: bool = False,
    tell: Callable[[Progress], None] = lambda _: None,
    run: CellRunner = run_cell,
) -> list[dict[str, Any]]:
    """Measure what the folder ``out`` does not hold yet.

    Parameters
    ----------
    timeout : wall-clock seconds of a cell
    threads : of a cell
    retry_failed : measure again the cells that failed, crashed or ran out of time
    tell : called before and after every cell

    Returns
    -------
    The last record of every cell of the folder, also of those not asked for.

    A cell is on disk before the next begins. An interruption loses the cell under way and nothing
    else; the same call goes on behind it.

    Raises
    ------
    ValueError
        ``timeout`` or ``threads`` out of range; a folder that another run writes to, or that holds
        something else.
    """
    if not timeout > 0:
        raise ValueError(f"timeout must be a number of seconds above 0, got {timeout!r}")
    if threads < 1:
        raise ValueError(f"threads must be 1 or more, got {threads}")
    with Journal(out) as journal:
        found = latest(journal.records)
        todo = [c for c in cells if _wanted(found.get(c.key), retry_failed)]
        if todo:
            machine = describe("transformers", at=ROOT)
            journal.append({"type": "session", "at": _now(), "threads": threads, **machine})
        for i, cell in enumerate(todo):
            tell(Progress(i, len(todo), cell, None))
            at = _now()
            outcome = run(cell, timeout=timeout, threads=threads)
            record = {
                "type": "cell",
                "key": cell.key,
                **cell.identity,
                "kind": cell.method.kind,
                "source": cell.method.source,
                "refit": cell.method.refit,
                "reference": cell.method.reference,
                "at": at,
                "threads": threads,
                "timeout": timeout,
                **machine,
                **outcome,
            }
            journal.append(encode(record))
            tell(Progress(i + 1, len(todo), cell, record))
        return list(latest(journal.records).values())


def _wanted(record: dict[str, Any] | None, retry_failed: bool) -> bool:
    return record is None or (retry_failed and record["status"] in FAILED)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
