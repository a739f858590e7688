"""Tables and figures from hand-made records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.quality.report import report_text, write_report
from benchmarks.quality.summary import WALL, entries, metric_of
from benchmarks.quality.tables import contest_lines, table


def some(record: Any) -> list[dict[str, Any]]:
    out = []
    for density, shift in (("0.5", 0.0), ("0.1", 0.2), ("2:4", 0.05)):
        for method, kind, value in (
            ("optiprune-mask", "mask", 0.85),
            ("wanda", "mask", 0.80),
            ("optiprune", "weights", 0.88),
            ("alps", "weights", 0.89),
            ("alps+refit", "weights", 0.87),
        ):
            for seed, spread in enumerate((0.0, 0.01, -0.02)):
                v = value - shift + spread
                out.append(
                    record(
                        method=method,
                        kind=kind,
                        density=density,
                        seed=seed,
                        source="optiprune" if "opti" in method else "layer",
                        metrics={"accuracy": v, "loss": 1 - v, "kl": 0.1},
                        wall_s=1.0 + len(method),
                    )
                )
    return out


def test_a_table_has_medians_ranges_and_the_best_in_bold(record: Any) -> None:
    found = [e for e in entries(some(record)) if e.kind == "mask"]
    lines = table(found, metric_of(found))
    assert lines[0] == "| method | 0.5 | 0.1 | 2:4 |"
    assert lines[2].startswith("| `optiprune-mask` (our default) | **85.00 (83.00..86.00)** |")
    assert lines[3] == (
        "| `wanda` | 80.00 (78.00..81.00) | 60.00 (58.00..61.00) | 75.00 (73.00..76.00) |"
    )


def test_what_is_cheap_is_not_bold(record: Any) -> None:
    found = [e for e in entries(some(record)) if e.kind == "mask"]
    assert "**" not in "".join(table(found, WALL))


def test_the_two_kinds_are_never_in_one_table(record: Any) -> None:
    found = entries(some(record))
    with pytest.raises(ValueError, match="never in one table"):
        table(found, WALL)
    text = report_text(some(record))
    for block in text.split("\n\n"):
        if block.startswith("| method | 0.5"):
            assert ("`wanda`" in block) != ("`alps`" in block)


def test_seeds_that_are_missing_or_failed_are_told(record: Any) -> None:
    records = [record(seed=0), record(seed=1), record(method="ria", seed=0)]
    records += [
        record(method="ria", seed=1, status="timeout", message="not | done"),
        record(method="dsnot", seed=0, status="crashed", message="signal 11"),
    ]
    found = entries(records)
    lines = table(found, metric_of(found))
    assert "| `ria` | **80.00 (1 of 2 seeds)** |" in lines
    assert "| `dsnot` | crashed |" in lines
    text = report_text(records)
    assert "| m | 0.1 | `ria` | 1 | timeout | not \\| done |" in text
    assert "5 cells, 2 of which failed." in text


def test_losing_cells_are_named(record: Any) -> None:
    text = "\n".join(contest_lines(entries(some(record))))
    mask, weights = text.split("### Weights moved")
    assert "No cell of 6 is lost." in mask
    assert "Lost, 6 of 6:" in weights
    assert "- m at 2:4, accuracy (%): 83.00, `alps` has 84.00" in weights


def test_a_report_and_its_figures(record: Any, tmp_path: Path) -> None:
    written = write_report(some(record), tmp_path)
    names = {p.relative_to(tmp_path).as_posix() for p in written}
    assert "quality.md" in names
    for stem in ("m-density", "m-time-0.5", "m-time-0.1", "m-time-2of4"):
        assert {f"figures/{stem}.png", f"figures/{stem}.svg"} <= names
    assert all(p.stat().st_size > 0 for p in written)
    again = (tmp_path / "figures" / "m-density.svg").read_bytes()
    write_report(some(record), tmp_path)
    assert (tmp_path / "figures" / "m-density.svg").read_bytes() == again


def test_a_model_of_which_nothing_worked_still_has_a_report(record: Any, tmp_path: Path) -> None:
    bad = record(status="crashed", message="signal 11")
    for name in ("metrics", "metric", "dense", "percent", "higher_is_better"):
        del bad[name]
    write_report([bad], tmp_path)
    assert "signal 11" in (tmp_path / "quality.md").read_text()


def test_a_method_with_patterns_alone_is_named_once(record: Any, tmp_path: Path) -> None:
    of_all = [r for r in some(record) if r["method"] != "alps+refit" or r["density"] == "2:4"]
    write_report(of_all, tmp_path)
    drawn = (tmp_path / "figures" / "m-density.svg").read_text()
    assert drawn.count(">alps+refit<") == drawn.count(">alps<") == 1
