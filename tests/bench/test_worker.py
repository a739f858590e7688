"""The process that solves: how it begins, what a lost one costs, that nothing outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optiprune.bench.errors import BenchError
from optiprune.bench.instances import Instance
from optiprune.bench.instances.instance import rounding
from optiprune.bench.protocol import SolverSpec, parse_solvers
from optiprune.bench.protocol.worker import Worker

HOW: dict[str, Any] = {"seed": 0, "budget": 0.02, "fill": True, "target": None}
SOLVERS = """
import os, subprocess, sys, time
from optiprune.problems import CardinalityQP
from optiprune.solvers import BaseSolver, Capabilities

class Crash(BaseSolver):
    name = "crash"
    capabilities = Capabilities(frozenset({CardinalityQP}))

    def _solve(self, problem, x0, seed, watch):
        os.kill(os.getpid(), 9)

class Hang(Crash):
    def _solve(self, problem, x0, seed, watch):
        sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with open("pids", "w") as f:
            print(os.getpid(), sleeper.pid, file=f)
        os.rename("pids", "sleeping")
        time.sleep(600)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with solvers that a process does not survive."""
    (tmp_path / "deadly.py").write_text(SOLVERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def spec(text: str) -> SolverSpec:
    (only,) = parse_solvers(text)
    return only


def gone(pid: int) -> bool:
    """Whether a process has ended, within some seconds; one that nobody has waited for counts."""
    for _ in range(500):
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def pids(folder: Path) -> list[int]:
    for _ in range(6000):
        if (folder / "sleeping").exists():
            return [int(p) for p in (folder / "sleeping").read_text().split()]
        time.sleep(0.01)
    raise AssertionError("no solve began")


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_lost_process_costs_its_time_and_leaves_nothing_behind(
    place: Path, instances: list[Instance]
) -> None:
    worker = Worker()
    impatient = Worker(patience=5.0)
    try:
        fine = worker.measure(instances[0], spec("greedy"), **HOW)
        assert fine["rounding"] == rounding(instances[0].load()) > 0
        died = worker.measure(instances[0], spec("deadly:Crash"), **(HOW | {"budget": 900.0}))
        assert "died" in died["message"]
        assert died["cpu_s"] == 900.0  # no cheaper than one that used its budget
        hung = impatient.measure(instances[0], spec("deadly:Hang"), **HOW)
        assert "no answer within" in hung["message"]
        assert hung["cpu_s"] == hung["wall_s"] >= 5.2
        assert all(map(gone, pids(place)))
        assert worker.measure(instances[0], spec("greedy"), **HOW)["energy"] == fine["energy"]
        changed = replace(instances[0], sha256="0" * 64)
        with pytest.raises(BenchError, match="has changed"):
            worker.measure(changed, spec("greedy"), **HOW)
    finally:
        worker.close()
        impatient.close()


RUN = """
import sys
from pathlib import Path
from optiprune.bench.instances import Selection, suite
from optiprune.bench.protocol import Protocol, parse_solvers, run_bench

def main():
    instances = suite("generators", Selection((12,), 1, "layer*"))
    run_bench(instances, parse_solvers(sys.argv[1]), Protocol((0.01,), 1), Path("out"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="process groups, and looks into /proc")
def test_a_bench_that_is_killed_takes_its_solver_along_without_a_word(place: Path) -> None:
    (place / "run.py").write_text(RUN + "\nif __name__ == '__main__':\n    main()\n")
    with open(place / "said", "w") as said:
        bench = subprocess.Popen(
            [sys.executable, "run.py", "deadly:Hang"], stdout=said, stderr=subprocess.STDOUT
        )
    solver, sleeper = pids(place)
    bench.send_signal(signal.SIGKILL)
    bench.wait()
    assert gone(solver)
    assert gone(sleeper)
    assert (place / "said").read_text() == ""


def test_a_script_without_a_main_guard_is_told_so(place: Path) -> None:
    (place / "run.py").write_text(RUN + "\nmain()\n")
    done = subprocess.run(
        [sys.executable, "run.py", "greedy"], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "if __name__ == '__main__':" in done.stderr.splitlines()[-1]
    assert "isolate=False" in done.stderr.splitlines()[-1]
    assert '"solve"' not in (place / "out" / "journal.jsonl").read_text()
