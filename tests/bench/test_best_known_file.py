"""best-known.json: what was written comes back, anything else is refused with its path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from optiprune.bench.errors import BenchError
from optiprune.bench.instances import BestKnown
from optiprune.bench.records import FILE, read_best_known, write_best_known


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    best = {"ab": BestKnown(-1.5, "tabu", "0f", -2.0, "exact"), "cd": BestKnown(2.0, "literature")}
    write_best_known(tmp_path / FILE, best, {"ab": "first"})
    assert read_best_known(tmp_path / FILE) == best


def test_a_file_of_before_has_no_rounding(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"ab": {"instance": "a", "energy": -1.5, "found_by": "tabu"}}')
    assert read_best_known(tmp_path / FILE) == {"ab": BestKnown(-1.5, "tabu")}


def test_names_that_a_report_does_not_know_are_kept(tmp_path: Path) -> None:
    # a run that was killed wrote down more than it solved
    best = {"ab": BestKnown(-1.5, "planted"), "cd": BestKnown(2.0, "literature")}
    write_best_known(tmp_path / FILE, best, {"ab": "first", "cd": "second"})
    write_best_known(tmp_path / FILE, best, {"ab": "1st"})
    table = json.loads((tmp_path / FILE).read_text())
    assert {sha: e["instance"] for sha, e in table.items()} == {"ab": "1st", "cd": "second"}


@pytest.mark.parametrize(
    "text", ["", "[]", "5", '{"a": 5}', '{"a": {"energy": 1, "x": "zz"}}', "[" * 3000 + "]" * 3000]
)
def test_anything_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(BenchError, match=FILE):
        read_best_known(tmp_path / FILE)
