"""The process of a cell: measured, crashed, too slow, wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.quality.grid import Cell, Density
from benchmarks.quality.methods import own_method
from benchmarks.quality.process import ROOT, run_cell
from benchmarks.quality.records import read_records


def cell(function: str, **fields: Any) -> Cell:
    method = own_method(function, {"callable": f"fakes:{function}", "moves_weights": False})
    return Cell("fakes:tiny", Density(0.5), method, 3, 32, **fields)


def test_a_good_cell_says_all(fakes: Path) -> None:
    found = run_cell(cell("keep_all"), timeout=300, threads=1)
    assert found["status"] == "ok", found
    assert (found["kept"], found["total"]) == (48, 96)
    assert set(found["metrics"]) == {"accuracy", "loss", "kl"}
    assert set(found["dense"]) == {"accuracy", "loss"}
    assert found["metrics"]["kl"] > 0
    assert 0 < found["layer_error"] < 10
    assert set(found["layer_errors"]) == {"0", "2"}
    assert 0 <= found["wall_s"] < 60
    assert found["peak_mib"] >= 0.9 * found["base_mib"] > 0


def test_a_crash_costs_one_cell(fakes: Path) -> None:
    found = run_cell(cell("dies"), timeout=300, threads=1)
    assert found["status"] == "crashed"
    assert "exit code 7" in found["message"]


def test_a_cell_that_is_too_slow_is_ended(fakes: Path) -> None:
    began = time.perf_counter()
    found = run_cell(cell("sleeps"), timeout=3, threads=1)
    assert found["status"] == "timeout"
    assert "3 s" in found["message"]
    assert time.perf_counter() - began < 60


@pytest.mark.slow
@pytest.mark.parametrize(("function", "words"), [("fails", "no good"), ("greedy", "96 of 96")])
def test_an_error_is_told_with_its_traceback(fakes: Path, function: str, words: str) -> None:
    found = run_cell(cell(function), timeout=300, threads=1)
    assert found["status"] == "failed"
    assert words in found["message"]
    assert "Traceback" in found["stderr"]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_ended_benchmark_leaves_no_process_and_a_whole_journal(fakes: Path, how: int) -> None:
    (fakes / "quality.toml").write_text(
        '[quality]\nmodels = ["fakes:tiny"]\ndensities = [0.5]\nseeds = [0]\nsamples = 32\n'
        'methods = ["keep_all", "waits"]\n'
        '[quality.method.keep_all]\ncallable = "fakes:keep_all"\nmoves_weights = false\n'
        '[quality.method.waits]\ncallable = "fakes:waits"\nmoves_weights = false\n'
    )
    with (fakes / "fakes.py").open("a") as f:
        f.write(
            "\ndef waits(model, layers, data, **_):\n"
            "    open('pid', 'w').write(str(os.getpid()))\n    time.sleep(600)\n"
        )
    command = [sys.executable, "-m", "optiprune", "bench", "quality", "--config", "quality.toml"]
    paths = os.pathsep.join([str(ROOT), str(fakes)])
    bench = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": paths}, stderr=subprocess.PIPE, text=True
    )
    try:
        pid = _wait_for(lambda: int((fakes / "pid").read_text()), 240)
        bench.send_signal(how)
        _, errors = bench.communicate(timeout=60)
    finally:
        bench.kill()
    if how == signal.SIGINT:
        assert bench.returncode == 130
        assert "interrupted" in errors
    _wait_for(lambda: not _lives(pid) or 1 / 0, 30)
    assert [r["method"] for r in read_records(fakes / "quality-out")] == ["keep_all"]


def _wait_for(look: Callable[[], Any], seconds: float) -> Any:
    """What ``look`` returns once it no longer raises."""
    end = time.monotonic() + seconds
    while True:
        try:
            return look()
        except (OSError, ValueError, ZeroDivisionError):
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
