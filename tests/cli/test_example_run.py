"""The example of the README: `optiprune prune examples/run.toml`, on real data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from optiprune.cli import app

pytest.importorskip("sklearn")
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "run.toml"


@pytest.fixture
def one_thread() -> object:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_example_keeps_its_accuracy_at_ten_percent(tmp_path: Path, one_thread: None) -> None:
    arguments = ["prune", str(EXAMPLE), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output + result.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["report"]["density"] == pytest.approx(0.1, abs=0.001)
    assert summary["dense"]["accuracy"] > 0.95
    assert summary["pruned"]["accuracy"] > summary["dense"]["accuracy"] - 0.03
