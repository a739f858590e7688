"""A command that is killed at any moment leaves whole files, or none; it can be run again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from optiprune.bench.instances import folder_suite
from optiprune.problems import layer_problem, write_problem

KILLS = 6


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forks of a process")
def test_what_is_there_after_a_kill_is_whole(tmp_path: Path) -> None:
    script = Path(__file__).with_name("killed_commands.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "1", str(KILLS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    kills = json.loads(done.stdout)
    assert sum(kills.values()) >= 2 * KILLS, kills


def test_a_folder_of_problems_does_not_hold_what_a_killed_writer_left(tmp_path: Path) -> None:
    write_problem(layer_problem(8, 4), tmp_path / "a.npz")
    (tmp_path / ".a.npz.x1y2.npz").write_bytes(b"PK\x03\x04 half of it")
    assert [i.name for i in folder_suite(tmp_path)] == ["a"]
