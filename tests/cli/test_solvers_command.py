"""`optiprune solvers`: what is registered, and what can be set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from optiprune import solvers
from optiprune.cli import app
from optiprune.problems import QUBO
from optiprune.solvers import BaseSolver, Capabilities, Outcome, Status


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "300"})


@dataclass(frozen=True)
class KeepAll(BaseSolver):
    """Keeps everything,
    whatever it costs.

    Second paragraph.
    """

    name: ClassVar[str] = "keep-all"
    capabilities: ClassVar[Capabilities] = Capabilities(frozenset({QUBO}), max_n=77)
    patience: int = 5
    mood: str | None = None

    def _solve(self, problem: Any, x0: Any, seed: Any, watch: Any) -> Outcome:
        return Outcome(np.ones(problem.n), Status.FEASIBLE, watch.stats("completed"))


@pytest.fixture
def keep_all() -> Iterator[None]:
    solvers.register("keep-all", KeepAll)
    yield
    solvers.unregister("keep-all")


def test_lists_every_registered_solver(keep_all: None) -> None:
    result = run("solvers")
    assert result.exit_code == 0, result.output
    for name in solvers.names():
        assert f" {name} " in result.output
    assert "cannot be loaded" not in result.output
    assert "Keeps everything, whatever it costs." in result.output
    assert "patience = 5" in result.output
    assert "mood = (none)" in result.output


def test_shows_one(keep_all: None) -> None:
    result = run("solvers", "keep-all")
    assert result.exit_code == 0, result.output
    assert "Second paragraph." in result.output
    cells = [[c.strip() for c in line.split("│")[1:-1]] for line in result.output.splitlines()]
    assert ["largest n", "77"] in cells
    assert ["exact", "no"] in cells
    assert ["patience", "int", "5"] in cells
    assert ["mood", "str | None", "(none)"] in cells


def test_a_broken_third_party_solver_hides_no_other() -> None:
    solvers.register("broken", "no_such_package_anywhere:Solver")
    try:
        result = run("solvers")
        one = run("solvers", "broken")
    finally:
        solvers.unregister("broken")
    assert result.exit_code == 0
    assert "cannot be loaded" in result.output
    assert " tabu " in result.output
    assert one.exit_code == 2
    assert "no_such_package_anywhere" in one.stderr


def test_unknown_name() -> None:
    result = run("solvers", "taboo")
    assert result.exit_code == 2
    assert "known:" in result.stderr
