"""Two writers in one folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from optiprune.durable import LockedError, locked

HOLD = """
import sys, time
from pathlib import Path
from optiprune.durable import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_told_who_the_first_is(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=f"in use by process {other.pid} on"):
            locked(tmp_path).__enter__()
        os.kill(other.pid, signal.SIGKILL)
    with locked(tmp_path):  # the system freed the lock of the one that was killed
        pass
    with locked(tmp_path):
        pass
