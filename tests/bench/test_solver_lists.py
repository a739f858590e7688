"""``auto,annealing:sweeps=50,restarts=0``: what a list of solvers means."""

from __future__ import annotations

from pathlib import Path

import pytest

from optiprune import solvers
from optiprune.bench.errors import BenchError
from optiprune.bench.protocol import ALIASES, GROUPS, parse_solvers, usable_solvers
from optiprune.bench.protocol.spec import typical_field
from optiprune.problems import QUBO, CardinalityQP


def shown(text: str) -> list[tuple[str, str, dict]]:
    return [(s.label, s.name, s.options) for s in parse_solvers(text)]


def test_names_and_options() -> None:
    assert shown("auto, tabu:tenure=5,iterations=0 ,greedy") == [
        ("auto", "auto", {}),
        ("tabu:iterations=0,tenure=5", "tabu", {"tenure": 5, "iterations": 0}),
        ("greedy", "greedy", {}),
    ]


def test_values_are_those_of_toml_and_may_hold_commas_and_colons() -> None:
    text = "dimod:sampler=dwave.samplers:TabuSampler,parameters={tenure = 5, timeout = 20},reads=2"
    ((label, name, options),) = shown(text)
    assert name == "dimod"
    assert options == {
        "sampler": "dwave.samplers:TabuSampler",
        "parameters": {"tenure": 5, "timeout": 20},
        "reads": 2,
    }
    assert "tenure" in label


def test_a_class_is_named_by_its_import_path() -> None:
    assert shown("my_package:Swaps,x@my.package:Swaps:swaps=5,rounds=2,greedy") == [
        ("my_package:Swaps", "my_package:Swaps", {}),
        ("x", "my.package:Swaps", {"swaps": 5, "rounds": 2}),
        ("greedy", "greedy", {}),
    ]


def test_what_is_missing_is_left_out_and_a_mistake_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "of_my_own.py").write_text("class Empty:\n    name = 'empty'\n")
    notes: list[str] = []
    missing = "x@dimod:sampler=no_such_module:Sampler"
    (left,) = usable_solvers(parse_solvers(f"{missing},greedy"), notes.append)
    assert left.label == "greedy"
    assert len(notes) == 1
    assert "x: left out" in notes[0]
    with pytest.raises(BenchError, match="nothing can be measured"):
        usable_solvers(parse_solvers(missing), notes.append)
    for text, message in (
        ("greedy,highs:nonsense=1", "no option 'nonsense'"),
        ("greedy,tabu:tenure=x", "tenure"),
        ("greedy,of_my_own:Nothing", "has no attribute 'Nothing'"),
        ("greedy,no_such_module:Nothing", "No module named 'no_such_module'"),
        ("greedy,of_my_own:Empty", "lacks 'capabilities', 'solve', 'solve_many'"),
    ):
        with pytest.raises(solvers.SolverError, match=message):
            usable_solvers(parse_solvers(text), notes.append)


def test_labels_aliases_and_groups() -> None:
    assert shown("fast@annealing:sweeps=5")[0] == ("fast", "annealing", {"sweeps": 5})
    ((label, name, options),) = shown("dwave-sa:reads=3")
    assert (label, name) == ("dwave-sa:reads=3", "dimod")
    assert options["reads"] == 3
    assert [s.label for s in parse_solvers("native")] == list(GROUPS["native"])
    assert len(parse_solvers("native,tabu")) == len(GROUPS["native"])  # named twice, once there


def test_every_alias_names_a_solver_and_every_group_its_members() -> None:
    for alias in ALIASES.values():
        assert alias.name in solvers.names()
        assert set(alias.options) <= set(solvers.options_of(solvers.solver_class(alias.name)))
    for members in GROUPS.values():
        assert parse_solvers(",".join(members))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", BenchError, "no solver"),
        ("sweeps=5", BenchError, "before any solver"),
        ("anealing", solvers.UnknownSolverError, "annealing"),
        ("anealing", solvers.UnknownSolverError, r"did you mean.*module:Class.*optiprune\.solvers"),
        ("a@tabu,a@greedy", BenchError, "label@name"),
        ("greedy,x@greedy", BenchError, "'greedy' and 'x' are the same solver"),
        ("dwave-sa,x@dwave-sa", BenchError, "the same solver"),
    ],
)
def test_what_is_refused(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_solvers(text)


def test_other_options_are_another_solver() -> None:
    a, b = parse_solvers("tabu:tenure=5,x@tabu:tenure=6")
    assert a.key != b.key
    assert parse_solvers("y@tabu:tenure=5")[0].key == a.key


def test_a_penalty_in_units_of_the_problem() -> None:
    pytest.importorskip("dwave.samplers")
    # one flip changes the energy by 3 wherever one stands
    problem = CardinalityQP([[3.0, 0], [0, 3.0]], k=1)
    assert typical_field(problem) == 3.0
    (spec,) = parse_solvers("dwave-sa-1000-p0.1")
    assert spec.make(problem).penalty == pytest.approx(0.3)
    assert spec.make(QUBO([[1.0]])).penalty is None


def test_reads_of_openjij_differ_from_one_another() -> None:
    pytest.importorskip("openjij")
    dimod = pytest.importorskip("dimod")
    from optiprune.bench.protocol.openjij_reads import OpenJijReads

    # all energies are the same: any state is as good as another
    bqm = dimod.BinaryQuadraticModel(dict.fromkeys(range(12), 0.0), {(0, 1): 1e-9}, 0.0, "BINARY")
    found = OpenJijReads().sample(bqm, num_reads=10, num_sweeps=5, sparse=False)
    assert len({tuple(row) for row in found.record.sample.tolist()}) > 1
    (spec,) = parse_solvers("openjij-sa-100-p0.1")
    problem = CardinalityQP([[3.0, 0, 1], [0, 2.0, 0], [1, 0, 1.0]], k=2)
    assert spec.make(problem).solve(problem).energy == pytest.approx(3.0)


def test_simulated_bifurcation_solves_a_small_problem() -> None:
    pytest.importorskip("simulated_bifurcation")
    problem = CardinalityQP([[3.0, 0, 1], [0, 2.0, 0], [1, 0, 1.0]], k=2)
    for spec in parse_solvers("simulated-bifurcation,bifurcation-p0.1"):
        assert spec.make(problem).solve(problem).energy == pytest.approx(3.0)
