"""Solvers by name: lookup, options, tables, registration."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from optiprune import solvers
from optiprune.problems import QUBO
from optiprune.solvers import (
    BaseSolver,
    Capabilities,
    Outcome,
    SolverError,
    SolverOptionError,
    Status,
    UnknownSolverError,
)

BUILT_IN = [
    "annealing",
    "auto",
    "dimod",
    "exhaustive",
    "greedy",
    "highs",
    "local-search",
    "pyomo",
    "tabu",
    "torch",
]


@dataclass(frozen=True)
class Ones(BaseSolver):
    """Keeps everything: enough to be a solver."""

    name: ClassVar[str] = "ones"
    capabilities: ClassVar[Capabilities] = Capabilities(frozenset({QUBO}))

    level: int = 3
    table: dict[str, int] = field(default_factory=lambda: {"a": 1})

    def __post_init__(self) -> None:
        if self.level < 0:
            raise ValueError(f"level must be >= 0, got {self.level}")

    def _solve(self, problem: Any, x0: Any, seed: Any, watch: Any) -> Outcome:
        return Outcome(np.ones(problem.n), Status.FEASIBLE, watch.stats("completed"))


@pytest.fixture
def ones():
    solvers.register("ones", Ones)
    yield "ones"
    solvers.unregister("ones")


def test_built_in_names_are_all_there() -> None:
    assert set(BUILT_IN) <= set(solvers.names())
    assert solvers.names() == sorted(solvers.names())


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_solver_follows_the_protocol(name: str) -> None:
    solver = solvers.get(name)
    assert isinstance(solver, solvers.Solver)
    assert solver.name == name
    assert solver.capabilities.problems
    # hyperparameters are fields, and a solver is a value: equal settings, equal solvers
    assert dataclasses.is_dataclass(solver)
    assert solver == solvers.get(name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        solver.__setattr__(dataclasses.fields(solver)[0].name, None)


def test_a_misspelt_solver_is_named_with_its_neighbour() -> None:
    with pytest.raises(UnknownSolverError, match="did you mean 'annealing'") as e:
        solvers.get("anealing")
    assert all(name in str(e.value) for name in BUILT_IN)
    assert isinstance(e.value, LookupError)


@pytest.mark.parametrize("name", BUILT_IN)
def test_an_unknown_option_lists_the_valid_ones(name: str) -> None:
    with pytest.raises(SolverOptionError, match="has no option 'no_such_option'") as e:
        solvers.get(name, no_such_option=1)
    for option in solvers.options_of(solvers.solver_class(name)):
        assert option in str(e.value)


def test_a_bad_value_becomes_an_option_error(ones: str) -> None:
    with pytest.raises(SolverOptionError, match="level must be >= 0, got -1"):
        solvers.get(ones, level=-1)


def test_options_of_lists_defaults_from_values_and_factories() -> None:
    assert solvers.options_of(Ones) == {"level": 3, "table": {"a": 1}}
    assert solvers.options_of(int) == {}


def test_from_table_is_get_with_a_name(ones: str) -> None:
    table = {"name": ones, "level": 5}
    assert solvers.from_table(table) == solvers.get(ones, level=5) == Ones(level=5)
    assert table == {"name": ones, "level": 5}  # the caller's table is left alone


@pytest.mark.parametrize("table", [{}, {"level": 1}, {"name": 3}])
def test_a_table_without_a_name_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(SolverOptionError, match="needs a 'name', one of: annealing"):
        solvers.from_table(table)


def test_a_table_from_toml() -> None:
    tomllib = pytest.importorskip("tomllib")
    table = tomllib.loads('name = "highs"\nmip_gap = 0.01\noptions = {presolve = "off"}\n')
    solver = solvers.from_table(table)
    assert (solver.mip_gap, solver.options) == (0.01, {"presolve": "off"})


def test_register_refuses_a_taken_name(ones: str) -> None:
    for name in (ones, "annealing"):
        with pytest.raises(SolverError, match="exists already"):
            solvers.register(name, Ones)


def test_register_takes_an_import_path_and_loads_it_late() -> None:
    solvers.register("later", "no_such_module_of_anyone:Solver")
    try:
        assert "later" in solvers.names()
        with pytest.raises(SolverError, match="cannot be loaded"):
            solvers.get("later")
    finally:
        solvers.unregister("later")
    assert "later" not in solvers.names()


@pytest.mark.parametrize(
    "body", ["raise RuntimeError('no licence')", "1 / 0", "this is no Python", "import no_such_one"]
)
def test_a_plug_in_that_breaks_on_import_is_named(
    body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_plug_in.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    solvers.register("broken", "broken_plug_in:Solver")
    try:
        with pytest.raises(
            SolverError, match=r"'broken' \(broken_plug_in:Solver\) cannot be loaded"
        ):
            solvers.solver_class("broken")
    finally:
        solvers.unregister("broken")


@pytest.mark.parametrize("target", [5, None, "", "no colon", "a:b:c", "module:", Ones()])
def test_register_takes_classes_and_import_paths_only(target: Any) -> None:
    with pytest.raises(SolverError, match="a class or a string 'module:Class', got"):
        solvers.register("odd", target)
    assert "odd" not in solvers.names()


@pytest.mark.parametrize("name", [5, None, "", ("a", "b")])
def test_register_takes_names_only(name: Any) -> None:
    with pytest.raises(SolverError, match="name"):
        solvers.register(name, Ones)
    assert name not in solvers.names()


def test_what_is_not_a_solver_is_refused() -> None:
    for target, words in (("math:pi", "is not a class"), (dict, "Solver protocol")):
        solvers.register("odd", target)
        try:
            with pytest.raises(SolverError, match=words):
                solvers.get("odd")
        finally:
            solvers.unregister("odd")


def test_a_class_that_is_not_registered_is_named_by_its_import_path() -> None:
    path = f"{__name__}:Ones"
    assert solvers.get(path, level=4) == Ones(level=4)
    assert solvers.from_table({"name": path}) == Ones()
    assert path not in solvers.names()
    with pytest.raises(SolverOptionError, match="no option 'levle'"):
        solvers.get(path, levle=4)
    for name, words in (
        ("no_such_module:Ones", "solver 'no_such_module:Ones' cannot be loaded: ModuleNotFound"),
        (f"{__name__}:Twos", "has no attribute 'Twos'"),
        ("math:pi", "solver 'math:pi' is not a class"),
    ):
        with pytest.raises(SolverError, match=words):
            solvers.get(name)


@pytest.mark.parametrize("name", ["onse", "my/solver.py:Ones", "a:b:c"])
def test_who_names_none_is_told_how_to_name_ones_own(name: str) -> None:
    with pytest.raises(UnknownSolverError, match=r"'module:Class'.*group 'optiprune\.solvers'"):
        solvers.get(name)


def test_what_a_class_lacks_is_said() -> None:
    class Lonely:
        name = "lonely"
        capabilities = Ones.capabilities

        def solve(self, problem: Any, **how: Any) -> None: ...

    solvers.register("lonely", Lonely)
    try:
        with pytest.raises(SolverError, match=r"it lacks 'solve_many'; .*BaseSolver"):
            solvers.get("lonely")
    finally:
        solvers.unregister("lonely")


def test_unregister_knows_only_what_was_registered() -> None:
    with pytest.raises(UnknownSolverError, match="not registered"):
        solvers.unregister("annealing")
