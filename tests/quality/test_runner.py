"""A grid: each cell once, on disk at once, resumable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.quality.grid import Cell, Density
from benchmarks.quality.methods import Method
from benchmarks.quality.records import read_records
from benchmarks.quality.runner import run_grid

WANDA = Method("wanda", "layer", "mask", "wanda")
CELLS = [Cell("m", Density(d), WANDA, s, 10) for s in (0, 1) for d in (0.5, 0.1)]


class Runs:
    """Stands for the process of a cell; ``results`` are given out in turn."""

    def __init__(self, *results: Any) -> None:
        self.results = list(results)
        self.seen: list[Cell] = []

    def __call__(self, cell: Cell, *, timeout: float, threads: int) -> dict[str, Any]:
        self.seen.append(cell)
        result = self.results.pop(0) if self.results else {"status": "ok"}
        if isinstance(result, BaseException):
            raise result
        return result


def test_a_second_run_measures_nothing(tmp_path: Path) -> None:
    first, second = Runs(), Runs()
    assert len(run_grid(CELLS, tmp_path, run=first)) == 4
    assert len(run_grid(CELLS, tmp_path, run=second)) == 4
    assert first.seen == CELLS
    assert second.seen == []
    (record, *_) = read_records(tmp_path)
    assert (record["model"], record["density"], record["kind"]) == ("m", "0.5", "mask")
    assert "torch" in record["versions"]


def test_an_interruption_loses_only_the_cell_under_way(tmp_path: Path) -> None:
    broken = Runs({"status": "ok"}, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run_grid(CELLS, tmp_path, run=broken)
    assert len(read_records(tmp_path)) == 1
    rest = Runs()
    run_grid(CELLS, tmp_path, run=rest)
    assert rest.seen == CELLS[1:]


def test_failed_cells_are_repeated_only_when_asked(tmp_path: Path) -> None:
    bad = [{"status": s, "message": "?"} for s in ("failed", "crashed", "timeout")]
    run_grid(CELLS, tmp_path, run=Runs(*bad))
    again = Runs()
    run_grid(CELLS, tmp_path, run=again)
    assert again.seen == []
    records = run_grid(CELLS, tmp_path, run=again, retry_failed=True)
    assert again.seen == CELLS[:3]
    assert {r["status"] for r in records} == {"ok"}
    assert len(records) == 4


def test_records_are_on_disk_before_the_next_cell(tmp_path: Path) -> None:
    counts = []

    def look(cell: Cell, **_: Any) -> dict[str, Any]:
        lines = (tmp_path / "journal.jsonl").read_text().splitlines()
        counts.append(sum('"type":"cell"' in line for line in lines))
        return {"status": "ok"}

    run_grid(CELLS, tmp_path, run=look)
    assert counts == [0, 1, 2, 3]


def test_progress_is_told_before_and_after(tmp_path: Path) -> None:
    told: list[tuple[int, int, bool]] = []
    run_grid(
        CELLS[:2],
        tmp_path,
        run=Runs(),
        tell=lambda p: told.append((p.done, p.total, p.record is None)),
    )
    assert told == [(0, 2, True), (1, 2, False), (1, 2, True), (2, 2, False)]


@pytest.mark.parametrize(
    ("name", "value"), [("timeout", 0.0), ("timeout", float("nan")), ("threads", 0)]
)
def test_bad_limits_are_refused(tmp_path: Path, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        run_grid(CELLS, tmp_path, run=Runs(), **{name: value})
    assert not list(tmp_path.iterdir())
