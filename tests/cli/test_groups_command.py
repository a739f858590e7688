"""`optiprune groups`: units of a model, what holds the others, and bad input."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from optiprune.cli import app

MODEL = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 6, 1)
        self.rolled = nn.Conv2d(6, 6, 1)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        x = torch.relu(self.b(torch.relu(self.a(x))))
        return self.head(torch.roll(self.rolled(x), 1, dims=1))


def net():
    return Net()


def inputs():
    return {"x": torch.randn(2, 3, 8, 8)}


def number():
    return 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["groups", *arguments], env={"COLUMNS": "200"})


@pytest.mark.parametrize("given", [("--shape", "2,3,8,8"), ("--inputs", "net.py:inputs")])
def test_groups_are_listed_with_what_makes_and_reads_them(
    folder: Path, given: tuple[str, ...]
) -> None:
    done = run("net.py:net", *given)
    assert done.exit_code == 0, done.output
    assert "2 groups, 14 units" in done.output
    row = next(line for line in done.output.splitlines() if line.startswith("│ a "))
    assert "a.weight[0]" in row
    assert "b.weight[1]" in row
    assert "Held" not in done.output


def test_what_is_held_is_told_with_operation_and_line(folder: Path) -> None:
    done = run("net.py:net", "--shape", "2,3,8,8", "--held")
    assert done.exit_code == 0, done.output
    assert "aten.roll.default: it is rolled by a number of places" in done.output
    assert "net.py:15" in done.output
    assert "the model returns it" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("net.py:net",), "give either --inputs or --shape"),
        (("net.py:net", "--shape", "2,x"), "must be integers by commas"),
        (("net.py:net", "--shape", "1,3,8,8"), "a batch of two or more"),
        (("net.py:nothing", "--shape", "2,3"), "has no 'nothing'"),
        (("net.py:number", "--shape", "2,3"), "must return a torch.nn.Module, got a int"),
        (("net.py:net", "--shape", "2,4,8,8"), "could not trace Net"),
    ],
)
def test_bad_input(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert message in done.output
