"""best-known.json: what was written comes back, anything else is refused with its path."""

from __future__ import annotations

from pathlib import Path

import pytest

from optiprune.bench.errors import BenchError
from optiprune.bench.instances import BestKnown
from optiprune.bench.records import FILE, read_best_known, write_best_known


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    best = {"ab": BestKnown(-1.5, "tabu", "0f", -2.0, "exact"), "cd": BestKnown(2.0, "literature")}
    write_best_known(tmp_path / FILE, best, {"ab": "first"})
    assert read_best_known(tmp_path / FILE) == best


@pytest.mark.parametrize(
    "text", ["", "[]", "5", '{"a": 5}', '{"a": {"energy": 1, "x": "zz"}}', "[" * 3000 + "]" * 3000]
)
def test_anything_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(BenchError, match=FILE):
        read_best_known(tmp_path / FILE)
