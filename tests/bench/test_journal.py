"""The journal: whole lines only, whatever happens to the process that writes it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from optiprune.bench.errors import BenchError
from optiprune.bench.records import JOURNAL, Journal, read_journal

from .conftest import record


def test_records_come_back(tmp_path: Path) -> None:
    with Journal(tmp_path / "new" / "folder") as journal:
        journal.append({"type": "a", "value": 0.1})
        journal.append({"type": "b", "text": "ü\n"})
    assert read_journal(tmp_path / "new" / "folder") == [
        {"type": "a", "value": 0.1},
        {"type": "b", "text": "ü\n"},
    ]


def test_a_torn_line_is_skipped_and_then_cut_off(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL
    path.write_bytes(b'{"type":"a"}\n{"type":"b","x":[1,2')
    assert read_journal(tmp_path) == [{"type": "a"}]
    with Journal(tmp_path) as journal:
        assert journal.records == [{"type": "a"}]
        journal.append({"type": "c"})
    assert path.read_bytes() == b'{"type":"a"}\n{"type":"c"}\n'


def test_other_text_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text('{"type":"a"}\nhello\n')
    with pytest.raises(BenchError, match=r"journal\.jsonl:2"):
        read_journal(tmp_path)
    with pytest.raises(BenchError, match=r"journal\.jsonl:2"):
        Journal(tmp_path)
    assert (tmp_path / JOURNAL).read_text() == '{"type":"a"}\nhello\n'


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sha256": None}, "'sha256' is None"),
        ({"budget": "1"}, "'budget' is '1'"),
        ({"energy": "low"}, "'energy' is 'low'"),
        ({"trajectory": [[0.1]]}, "'trajectory'"),
        ({"trajectory": [[0.1, "low"]]}, "'trajectory'"),
    ],
)
def test_a_solve_without_its_fields_is_refused_with_its_line(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    (tmp_path / JOURNAL).write_text(
        json.dumps(record()) + "\n" + json.dumps(record(**fields)) + "\n"
    )
    with pytest.raises(BenchError, match=rf"journal\.jsonl:2: .*{message}"):
        read_journal(tmp_path)
    (tmp_path / JOURNAL).write_text('{"type":"solve"}\n')
    with pytest.raises(BenchError, match="it lacks 'instance'"):
        Journal(tmp_path)
    without = {k: v for k, v in record().items() if k != "x"}
    (tmp_path / JOURNAL).write_text(json.dumps(without) + "\n")
    with pytest.raises(BenchError, match="an energy without 'x'"):
        read_journal(tmp_path)


def test_a_solve_that_was_lost_needs_no_answer(tmp_path: Path) -> None:
    short = {k: v for k, v in record(status="error").items() if k not in ("energy", "bound", "x")}
    with Journal(tmp_path) as journal:
        journal.append(short)
    assert read_journal(tmp_path) == [short]


def test_what_json_has_no_word_for_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        with pytest.raises(ValueError, match="JSON"):
            journal.append({"type": "a", "value": float("nan")})
        journal.append({"type": "b"})
    assert read_journal(tmp_path) == [{"type": "b"}]


def test_two_runs_do_not_share_a_journal(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with Journal(tmp_path), pytest.raises(BenchError, match="another run"):
        Journal(tmp_path)
    Journal(tmp_path).close()


def test_no_results_at_all(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nosuch"):
        with pytest.raises(BenchError, match=r"holds no results.*bench solvers --out") as e:
            read_journal(folder)
        assert "Errno" not in str(e.value)


WRITE = """
import sys
from pathlib import Path
from optiprune.bench.records import Journal
with Journal(Path(sys.argv[1])) as journal:
    print("ready", flush=True)
    i = len(journal.records)
    while True:
        journal.append({"type": "a", "i": i, "pad": "x" * 50_000})
        i += 1
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_kills_at_any_moment_leave_whole_lines_in_order(tmp_path: Path) -> None:
    for wait in (0.0, 0.013, 0.031, 0.05):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITE, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(wait)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert [r["i"] for r in read_journal(tmp_path)] == list(range(len(read_journal(tmp_path))))
    Journal(tmp_path).close()
    lines = (tmp_path / JOURNAL).read_bytes().splitlines(keepends=True)
    assert len(lines) > 3
    assert all(line.endswith(b"\n") and json.loads(line) for line in lines)
