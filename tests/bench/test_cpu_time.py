"""CPU time of child processes: it must not be hidden in one that lives on."""

from __future__ import annotations

import subprocess
import sys

import pytest

from optiprune.bench.protocol.cpu_time import cpu_seconds

BUSY = """
import sys, time
while time.process_time() < 0.4:
    pass
print("done", flush=True)
sys.stdin.read()
"""


def test_a_child_counts_once_it_has_ended_and_on_linux_before() -> None:
    before = cpu_seconds()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", BUSY], **pipes) as child:
        assert child.stdout is not None
        child.stdout.readline()
        alive = cpu_seconds() - before
        assert child.stdin is not None
        child.stdin.close()
        child.wait()
    ended = cpu_seconds() - before
    assert ended == pytest.approx(0.4, abs=0.25)
    if sys.platform == "linux":
        assert alive == pytest.approx(0.4, abs=0.25)


GRANDCHILD = """
import subprocess, sys
pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
with subprocess.Popen([sys.executable, "-c", sys.argv[1]], **pipes) as child:
    child.stdout.readline()
    print("done", flush=True)
    sys.stdin.readline()
    child.stdin.close()
print("ended", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_grandchild_counts_while_it_lives_and_after() -> None:
    before = cpu_seconds()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", GRANDCHILD, BUSY], **pipes) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == b"done\n"
        alive = cpu_seconds() - before
        child.stdin.write(b"end it\n")
        child.stdin.flush()
        assert child.stdout.readline() == b"ended\n"
        ended = cpu_seconds() - before
        child.stdin.close()
        child.wait()
    all_ended = cpu_seconds() - before
    assert alive == pytest.approx(0.45, abs=0.25)
    assert ended == pytest.approx(alive, abs=0.2)
    assert all_ended == pytest.approx(alive, abs=0.2)
