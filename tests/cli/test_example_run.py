"""The example of the README: `optiprune prune examples/run.toml`, on real data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from optiprune.cli import app

pytest.importorskip("sklearn")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
EXAMPLE = EXAMPLES / "run.toml"


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


@pytest.mark.parametrize("decide", ["rule", "engine"])
def test_a_third_of_the_parameters_by_torque(tmp_path: Path, one_thread: None, decide: str) -> None:
    text = (EXAMPLES / "train.toml").read_text()
    text = text.replace('decide = "rule" ', f'decide = "{decide}" ')
    (tmp_path / "train.toml").write_text(text)
    (tmp_path / "digits_run.py").write_text((EXAMPLES / "digits_run.py").read_text())
    arguments = ["train", str(tmp_path / "train.toml"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output + result.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["decided_by"] == decide
    assert summary["parameters"]["after"] <= 0.33 * summary["parameters"]["before"]
    scores = summary["phases"][-1]["scores"]["accuracy"]
    assert scores > summary["scores_before"]["accuracy"] - 0.015
