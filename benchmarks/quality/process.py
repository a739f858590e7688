"""Measure a cell in a process of its own: a crash, a leak or an endless loop costs one cell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from .cell import request_of
from .grid import Cell

__all__ = ["run_cell"]

ROOT = Path(__file__).resolve().parents[2]
_TAIL = 2000


def run_cell(cell: Cell, *, timeout: float, threads: int) -> dict[str, Any]:
    """What came of the cell: at least ``status``, and ``message`` where it is not "ok".

    Parameters
    ----------
    timeout : wall-clock seconds, loading and measuring included, after which the process is killed
        with all that it has started (status "timeout")
    threads : of torch, BLAS and OpenMP

    Returns
    -------
    status : "ok", "failed" (an error was raised), "crashed" (the process died), "timeout"

    On Ctrl-C the process is killed and KeyboardInterrupt goes on.
    """
    with tempfile.TemporaryDirectory(prefix="optiprune-cell-") as folder:
        answer, errors = Path(folder) / "answer.json", Path(folder) / "errors.txt"
        began = time.perf_counter()
        with errors.open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.quality.cell"],
                stdin=subprocess.PIPE,
                stdout=err,
                stderr=err,
                env=_environment(threads),
                start_new_session=True,
            )
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(request_of(cell, threads, answer)).encode() + b"\n")
                process.stdin.flush()  # and left open: its end is the end of the process
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            words = f"not done within {timeout:g} s; its process was ended"
            return {"status": "timeout", "message": words, "wall_s": round(timeout, 4)}
        finally:
            _end(process)
        if process.returncode == 0 and answer.exists():
            found = json.loads(answer.read_text())
            if found["status"] != "ok":
                found["stderr"] = _tail(errors)
            return found
        return {
            "status": "crashed",
            "message": _how_it_died(process.returncode),
            "stderr": _tail(errors),
            "wall_s": round(time.perf_counter() - began, 4),
        }


def _environment(threads: int) -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    paths = [str(ROOT), str(Path.cwd()), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        **{name: str(threads) for name in names},
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(p for p in paths if p),
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the group, also what a method left behind."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()


def _how_it_died(code: int) -> str:
    if code == -signal.SIGKILL:
        return "killed from outside (signal 9), most often since memory ran out"
    if code < 0:
        return f"died of signal {-code} ({signal.Signals(-code).name})"
    return f"ended with exit code {code} and without an answer"


def _tail(path: Path) -> str:
    return path.read_bytes()[-_TAIL:].decode(errors="replace")
