"""The process of a cell: measured, crashed, too slow, wrong."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.quality.grid import Cell, Density
from benchmarks.quality.methods import own_method
from benchmarks.quality.process import run_cell


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
