"""Records: what is written is read again, and what was changed is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.quality.records import Journal, decode, encode, latest, read_records


def test_infinite_numbers_survive(record: Any) -> None:
    r = record(
        metrics={"accuracy": math.inf, "loss": math.nan, "kl": -math.inf}, layer_error=math.inf
    )
    back = decode(json.loads(json.dumps(encode(r), allow_nan=False)))
    assert back["metrics"]["accuracy"] == math.inf
    assert math.isnan(back["metrics"]["loss"])
    assert back["metrics"]["kl"] == -math.inf
    assert back["layer_error"] == math.inf


def test_the_last_record_of_a_cell_counts(record: Any) -> None:
    lines = [{"type": "session"}, record(status="failed"), record(seed=1), record(wall_s=9.0)]
    found = latest(lines)
    assert [(r["seed"], r["status"]) for r in found.values()] == [(1, "ok"), (0, "ok")]
    assert list(found.values())[-1]["wall_s"] == 9.0


def test_a_record_changed_by_hand_is_refused(record: Any) -> None:
    good = record()
    with pytest.raises(ValueError, match="not that of its fields"):
        latest([{**good, "density": "0.5"}])
    with pytest.raises(ValueError, match="lacks seed"):
        latest([{k: v for k, v in good.items() if k != "seed"}])


def test_a_folder_without_results_says_how_to_make_some(tmp_path: Path, record: Any) -> None:
    with pytest.raises(ValueError, match="optiprune bench quality"):
        read_records(tmp_path)
    with Journal(tmp_path) as journal:
        journal.append({"type": "session"})
    with pytest.raises(ValueError, match="no cell"):
        read_records(tmp_path)
    with Journal(tmp_path) as journal:
        journal.append(encode(record()))
    assert [r["method"] for r in read_records(tmp_path)] == ["wanda"]


def test_half_a_line_is_left_out(tmp_path: Path, record: Any) -> None:
    with Journal(tmp_path) as journal:
        journal.append(encode(record()))
        path = journal.path
    with path.open("a") as f:
        f.write('{"type": "cell", "key"')
    assert len(read_records(tmp_path)) == 1
