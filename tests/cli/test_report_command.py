"""`optiprune report`: where it writes, in which form, and what it refuses to replace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from optiprune.cli import app

USER_CODE = """
import torch
from torch import nn

def load():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))

def batches():
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
    return [(x, x[:, :3].argmax(1))]
"""
CONFIG = """
[model]
factory = "user.py:load"
[data]
calibration = "user.py:batches"
[prune]
sparsity = 0.5
[output]
history = "steps.jsonl"
[solver]
name = "greedy"
"""


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("report")
    (folder / "user.py").write_text(USER_CODE)
    (folder / "run.toml").write_text(CONFIG)
    out = [folder / "a", folder / "b"]
    for i, path in enumerate(out):
        done = command("prune", folder / "run.toml", "--out", path, "--seed", i)
        assert done.exit_code == 0, done.stderr
    return out


def test_a_page_in_the_folder_of_the_run_and_again(runs: list[Path]) -> None:
    for _ in range(2):
        done = command("report", runs[0])
        assert done.exit_code == 0, done.stderr
    assert (runs[0] / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_several_runs_in_the_present_folder(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command("report", *runs, "--format", "markdown")
    assert done.exit_code == 0, done.stderr
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "## Comparison" in text


def test_the_form_follows_the_ending(runs: list[Path], tmp_path: Path) -> None:
    done = command("report", runs[0], "--out", tmp_path / "x.json")
    assert done.exit_code == 0, done.stderr
    assert json.loads((tmp_path / "x.json").read_text())["format"] == "optiprune-report"


def test_to_standard_output(runs: list[Path]) -> None:
    done = command("report", runs[0], "--out", "-", "--format", "json")
    assert json.loads(done.stdout)["parts"][0]["state"] == "finished"


def test_a_file_is_replaced_only_with_force(runs: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "mine.html"
    target.write_text("my notes")
    done = command("report", runs[0], "--out", target)
    assert done.exit_code == 2
    assert "--force" in done.stderr
    assert target.read_text() == "my notes"
    assert command("report", runs[0], "--out", target, "--force").exit_code == 0
    assert target.read_text().startswith("<!DOCTYPE")


@pytest.mark.parametrize("name", ["summary.json", "steps.jsonl", "masks.safetensors"])
def test_files_of_the_run_are_never_replaced(runs: list[Path], name: str) -> None:
    before = (runs[0] / name).read_bytes()
    done = command("report", runs[0], "--out", runs[0] / name, "--force")
    assert done.exit_code == 2
    assert "a file of the run itself" in done.stderr
    assert (runs[0] / name).read_bytes() == before


def test_bad_places_and_bad_runs(runs: list[Path], tmp_path: Path) -> None:
    for arguments, why in (
        ((tmp_path / "no",), "does not exist"),
        ((tmp_path,), "holds no run"),
        ((runs[0], "--out", tmp_path), "is a folder"),
        ((runs[0], "--out", tmp_path / "no" / "x.html"), "there is no folder"),
        ((runs[0], runs[0]), "given twice"),
    ):
        done = command("report", *arguments)
        assert done.exit_code == 2
        assert why in done.stderr
