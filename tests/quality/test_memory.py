"""What processes below this one hold."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.quality.memory import watched_children

HOLD = "x = bytearray(b'1') * (64 << 20); print(len(x), flush=True); input()"


def test_the_most_that_children_held_together_stays() -> None:
    with watched_children() as peak:
        command = [sys.executable, "-c", HOLD]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        children = [subprocess.Popen(command, **pipes) for _ in range(2)]
        try:
            for child in children:
                assert child.stdout.readline()
            peak.look()
        finally:
            for child in children:
                child.communicate(b"\n", timeout=60)
        most = peak.mib
        assert 128 < most < 1024
    assert peak.mib == most
