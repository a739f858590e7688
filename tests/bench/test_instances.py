"""Suites, content hashes, folders and exports."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from optiprune.bench.errors import BenchError
from optiprune.bench.instances import (
    MANIFEST,
    SUITES,
    BestKnown,
    Instance,
    Selection,
    digest,
    export,
    export_suite,
    folder,
    folder_suite,
    suite,
)
from optiprune.bench.instances.instance import bits_of, hex_of
from optiprune.problems import (
    MIQP,
    QUBO,
    BudgetQP,
    CardinalityQP,
    fisher_problem,
    maxcut_qubo,
    read_problem,
    write_problem,
)
from optiprune.solvers import get

from .conftest import small

QUIET = Selection((16,), 1)


def silent(_: str) -> None:
    pass


def test_bits_as_hexadecimal_digits() -> None:
    assert hex_of([1, 0, 0, 0, 0, 0, 0, 1, 1]) == "8180"
    assert bits_of("8180", 9).tolist() == [1, 0, 0, 0, 0, 0, 0, 1, 1]
    for text, n in (("81", 9), ("8g", 8), ("", 1)):
        with pytest.raises(BenchError):
            bits_of(text, n)


def test_equal_content_has_one_hash_and_other_content_another(tmp_path: Path) -> None:
    Q, linear = [[1.0, 2.0], [2.0, 0.5]], [0.5, -1.0]
    known = digest(QUBO(Q, linear))
    assert digest(QUBO(np.array(Q, dtype=np.float32), linear)) == known
    assert digest(QUBO([[1.5, 2.0], [2.0, -0.5]])) == known  # x**2 = x
    write_problem(QUBO(Q, linear), tmp_path / "a.bqp")
    assert digest(read_problem(tmp_path / "a.bqp")) == known
    others = [
        QUBO(Q, linear, 1.0),
        QUBO(Q),
        CardinalityQP(Q, linear, k=1),
        CardinalityQP(Q, linear, k=2),
        CardinalityQP(Q, linear, k=[1, 0], groups=[0, 1]),
        BudgetQP(Q, linear, A=[1.0, 1.0], upper=1.0),
        BudgetQP(Q, linear, A=[1.0, 1.0], upper=2.0),
        MIQP(np.eye(2), linear, k=1),
        MIQP(np.eye(2), linear, k=1, M=2.0),
        fisher_problem(4, 2)[0],
    ]
    assert len({known, *map(digest, others)}) == len(others) + 1


@pytest.mark.parametrize("name", ["generators", "maxcut"])
def test_generated_suites_are_the_same_each_time(name: str) -> None:
    first = suite(name, QUIET, silent)
    again = suite(name, QUIET, silent)
    assert len(first) >= 3
    assert [i.sha256 for i in first] == [i.sha256 for i in again]
    assert len({i.name for i in first}) == len({i.sha256 for i in first}) == len(first)
    for i in first:
        there = pickle.loads(pickle.dumps(i))  # for another process
        assert digest(there.load()) == i.sha256
        assert there.load().n == i.n == 16


def test_an_instance_does_not_depend_on_how_many_are_asked_for() -> None:
    few = {i.name: i.sha256 for i in suite("generators", Selection((16,), 1), silent)}
    many = {i.name: i.sha256 for i in suite("generators", Selection((12, 16), 2), silent)}
    assert few.items() < many.items()


def test_torus_graphs_have_four_neighbours() -> None:
    (torus,) = suite("maxcut", Selection((36,), 1, "torus*"), silent)
    assert ((torus.load().dense() != 0).sum(axis=1) == 4).all()


def test_planted_optima_are_known_before_any_run() -> None:
    for i in suite("generators", Selection((12,), 1, "planted*"), silent):
        assert i.best is not None
        assert i.best.proven
        assert get("exhaustive").solve(i.load()).energy == i.best.energy


def test_selections() -> None:
    assert {i.family for i in suite("generators", Selection((16,), 2, "fisher*"), silent)} == {
        "fisher"
    }
    with pytest.raises(BenchError, match=r"matches 'no-such-\*'; its names: layer-n16-00, fisher"):
        suite("generators", Selection((16,), 1, "no-such-*"), silent)
    with pytest.raises(BenchError, match=r"no instance of size 50, 65; its sizes: 3000, 4000$"):
        suite("palubeckis", Selection((65, 50), match="p[34]000.?"), silent)
    with pytest.raises(BenchError, match="got none"):
        Selection(sizes=())
    with pytest.raises(BenchError, match=", ".join(SUITES)):
        suite("no-such-suite", None, silent)
    with pytest.raises(BenchError):
        Selection(count=0)


def test_published_instances_carry_the_value_of_the_literature(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from optiprune.bench.instances import suites

    monkeypatch.setattr(suites, "palubeckis_instance", lambda name: QUBO(np.eye(3)))
    found = suite("palubeckis", Selection(match="p[35]000.1"), silent)
    assert [i.name for i in found] == ["p3000.1", "p5000.1"]
    assert found[0].best is not None
    assert found[0].best.energy == -3931583.0
    assert not found[0].best.proven


def test_a_best_known_answer_must_be_what_it_claims() -> None:
    problem = small()
    solution = get("exhaustive").solve(problem)
    assert solution.x is not None
    good = BestKnown(solution.energy, "exhaustive", hex_of(solution.x))
    Instance.of("a", problem, small, family="f", recipe="r", best=good)
    lie = BestKnown(solution.energy - 1, "nobody", hex_of(solution.x))
    with pytest.raises(BenchError, match="claims energy"):
        Instance.of("a", problem, small, family="f", recipe="r", best=lie)
    outside = BestKnown(problem.energy(np.ones(12)), "nobody", hex_of(np.ones(12)))
    with pytest.raises(BenchError, match="violation"):
        Instance.of("a", problem, small, family="f", recipe="r", best=outside)


def test_an_instance_that_changed_is_refused(instances: list[Instance]) -> None:
    from dataclasses import replace

    changed = replace(instances[0], source=instances[1].source)
    with pytest.raises(BenchError, match="has changed"):
        changed.load()


def test_a_folder_without_a_manifest_is_every_problem_file_in_it(tmp_path: Path) -> None:
    write_problem(small(), tmp_path / "one.npz")
    write_problem(maxcut_qubo([[0, 1.0], [1.0, 0]]), tmp_path / "two.rudy")
    write_problem(small(1), tmp_path / "two.npz")
    (tmp_path / "notes.txt").write_text("not a problem")
    found = suite(str(tmp_path), None, silent)
    assert [i.name for i in found] == ["one", "two.npz", "two.rudy"]
    assert found[0].sha256 == digest(small())
    assert len(suite(str(tmp_path), Selection(sizes=(2,)), silent)) == 1
    with pytest.raises(BenchError, match=r"no instance of size 65; its sizes: 2, 12$"):
        suite(str(tmp_path), Selection(sizes=(65,)), silent)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(BenchError, match="no problem files"):
        suite(str(empty), None, silent)


def test_files_that_hold_no_problem_and_second_copies_are_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "activations.npz", a=np.ones(3))
    write_problem(small(), tmp_path / "b.npz")
    write_problem(small(), tmp_path / "c.npz")
    told: list[str] = []
    assert [i.name for i in suite(str(tmp_path), None, told.append)] == ["b"]
    foreign, copy = told
    assert foreign.startswith("activations.npz: left out: ")
    assert copy == "c: left out: the same problem as b"
    with pytest.raises(
        BenchError, match=r"matches 'act\*' and can be read; it has: activations, b"
    ):
        suite(str(tmp_path), Selection(match="act*"), silent)
    # what is not asked for is not even read
    read: list[str] = []
    monkeypatch.setattr(folder, "_read", lambda p: read.append(p.name) or read_problem(p))
    told.clear()
    assert [i.name for i in suite(str(tmp_path), Selection(match="c"), told.append)] == ["c"]
    assert (told, read) == ([], ["c.npz"])


def test_an_export_comes_back_with_all_that_is_known(tmp_path: Path) -> None:
    made = suite("generators", QUIET, silent)
    export_suite(made, tmp_path, ("npz", "json"), request={"suite": "generators"}, note=silent)
    back = folder_suite(tmp_path)
    assert [i.description() for i in back] == [i.description() for i in made]
    assert [digest(i.load()) for i in back] == [i.sha256 for i in made]
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert manifest["request"] == {"suite": "generators"}
    assert "numpy" in manifest["made_on"]["versions"]
    entry = manifest["instances"][0]
    assert {"name", "recipe", "seed", "n", "k", "family", "sha256", "best_known"} <= set(entry)


def test_a_manifest_has_the_revision_of_the_code_and_not_of_the_folder_that_one_works_in(
    tmp_path: Path, instances: list[Instance], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path | None] = []
    monkeypatch.setattr(export, "describe", lambda *_, at=None: asked.append(at) or {})
    export_suite(instances, tmp_path, note=silent)
    assert asked == [Path(export.__file__).parent]


def test_every_format_gives_the_energies_of_the_problem(
    tmp_path: Path, instances: list[Instance], rng: np.random.Generator
) -> None:
    graph = Instance.of("graph", cut(), cut, family="f", recipe="r")
    told: list[str] = []
    formats = ("npz", "bqp", "rudy", "lp", "mps", "json")
    export_suite([instances[0], graph], tmp_path, formats, note=told.append)
    assert any("rudy" in line for line in told)  # said, not silently left out
    problem = instances[0].load()
    x = np.zeros(12, dtype=np.int8)
    x[rng.permutation(12)[:6]] = 1
    for name in ("lp", "mps"):
        file = read_problem(tmp_path / f"small-0.{name}")
        assert file.energy(x) == pytest.approx(problem.energy(x), rel=1e-9)
    table = json.loads((tmp_path / "small-0.json").read_text())
    energy = table["offset"] + x @ table["linear"]
    energy += sum((1 if i == j else 2) * q * x[i] * x[j] for i, j, q in table["Q"])
    assert energy == pytest.approx(problem.energy(x))
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    (penalty,) = (f for f in manifest["instances"][0]["files"] if f["format"] == "bqp")
    assert penalty["form"] == "penalty"
    form = read_problem(tmp_path / penalty["file"])
    assert form.energy(x) + penalty["offset"] == pytest.approx(problem.energy(x))
    best = get("exhaustive").solve(form)
    assert problem.violation(best.x) == 0
    assert digest(read_problem(tmp_path / "graph.rudy")) == graph.sha256
    # whatever format it is read from
    shutil.rmtree(tmp_path / "x", ignore_errors=True)
    export_suite([graph], tmp_path / "x", ("rudy",), note=silent)
    assert folder_suite(tmp_path / "x")[0].load().n == 5
    export_suite([graph], tmp_path / "y", ("lp",), note=silent)
    assert folder_suite(tmp_path / "y")[0].load().n == 5


def cut() -> QUBO:
    ring = np.roll(np.eye(5), 1, axis=1)
    return maxcut_qubo(ring + ring.T)


def test_damaged_exports_are_refused(tmp_path: Path, instances: list[Instance]) -> None:
    export_suite(instances, tmp_path, note=silent)
    write_problem(small(7), tmp_path / "small-0.npz")
    with pytest.raises(BenchError, match="has changed"):
        folder_suite(tmp_path)
    (tmp_path / "small-0.npz").unlink()
    with pytest.raises(BenchError, match="missing"):
        folder_suite(tmp_path)
    listed = (tmp_path / MANIFEST).read_text()
    for name in ("9" * 5000, "a\\u0000b"):  # which no file can have
        (tmp_path / MANIFEST).write_text(listed.replace("small-0.npz", name))
        with pytest.raises(BenchError, match="missing"):
            folder_suite(tmp_path)
    nested = "[" * 3000 + "]" * 3000
    for text in ("{", "[]", '{"format": "x", "version": 1}', '{"instances": 5}', nested):
        (tmp_path / MANIFEST).write_text(text)
        with pytest.raises(BenchError, match="manifest"):
            folder_suite(tmp_path)


def test_unknown_formats_and_misfits_are_refused(tmp_path: Path, instances: list[Instance]) -> None:
    with pytest.raises(BenchError, match="unknown format 'xlsx'; valid: npz"):
        export_suite(instances, tmp_path, ("npz", "xlsx"))
    with pytest.raises(BenchError, match="no format given; valid: npz"):
        export_suite(instances, tmp_path, ())
    with pytest.raises(BenchError, match="fits none"):
        export_suite(instances, tmp_path, ("rudy",), note=silent)
