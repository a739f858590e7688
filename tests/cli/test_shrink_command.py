"""`optiprune shrink`: a smaller model on disk that can be made again, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_model
from torch import nn
from typer.testing import CliRunner, Result

from optiprune.cli import app
from optiprune.structure import Plan, shrink

MODEL = """
import torch
from torch import nn


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4)
    )


def batches():
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(64, 1, 6, 6, generator=generator), torch.arange(64) % 4)]


def inputs_alone():
    return [batches()[0][0]]


def score(model):
    x, y = batches()[0]
    with torch.no_grad():
        return {"accuracy": float((model(x).argmax(1) == y).float().mean())}


def number(*_):
    return 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["shrink", *arguments], env={"COLUMNS": "160"})


def test_the_smaller_model_is_written_and_made_again(folder: Path) -> None:
    given = ("net.py:net", "--calibration", "net.py:batches", "--evaluate", "net.py:score")
    done = run(*given, "--macs", "0.5", "--multiple", "1")
    assert done.exit_code == 0, done.output
    assert "multiply-adds" in done.output
    assert "proven best" in done.output
    assert "accuracy" in done.output
    summary = json.loads((folder / "shrunk" / "summary.json").read_text())
    assert summary["after"]["macs"] <= 0.5 * summary["before"]["macs"]
    assert sorted(p.name for p in (folder / "shrunk").iterdir()) == [
        "plan.json",
        "summary.json",
        "weights.safetensors",
    ]
    space: dict[str, object] = {}
    exec(MODEL, space)
    model: nn.Module = space["net"]()  # type: ignore[operator]
    x = space["batches"]()[0][0]  # type: ignore[operator]
    small = shrink(model, Plan.load(folder / "shrunk" / "plan.json"), (x[:2],)).model
    load_model(small, folder / "shrunk" / "weights.safetensors")
    assert sum(p.numel() for p in small.parameters()) == summary["after"]["parameters"]
    with torch.no_grad():
        accuracy = float((small(x).argmax(1) == torch.arange(64) % 4).float().mean())
    assert accuracy == pytest.approx(summary["scores"]["after"]["accuracy"])
    again = run(*given, "--macs", "0.5")
    assert again.exit_code == 2
    assert "give --force" in again.output
    forced = run("net.py:net", "--calibration", "net.py:inputs_alone", "--parameters", "0.9",
                 "--multiple", "1", "--force")  # fmt: skip
    assert forced.exit_code == 0, forced.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("net.py:net", "--calibration", "net.py:batches"), "give a budget"),
        (("net.py:number", "--calibration", "net.py:batches", "--macs", "0.5"), "torch.nn.Module"),
        (("net.py:net", "--calibration", "net.py:number", "--macs", "0.5"), "an iterable"),
        (("net.py:net", "--calibration", "net.py:nowhere", "--macs", "0.5"), "nowhere"),
        (
            ("net.py:net", "--calibration", "net.py:batches", "--macs", "0.5", "--evaluate",
             "net.py:number", "--multiple", "1"),
            "a table of numbers",
        ),
        (
            ("net.py:net", "--calibration", "net.py:batches", "--macs", "0.5", "--objective", "x"),
            "there are 'reconstruction' and 'global'",
        ),
        (("net.py:net", "--calibration", "net.py:batches", "--macs", "0.001"), "can fall to"),
        (
            ("net.py:net", "--calibration", "net.py:batches", "--macs", "0.5", "--out", "net.py"),
            "is a file",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_told_before_anything_is_written(
    folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert message in done.output
    assert not (folder / "shrunk").exists()
