"""`optiprune bench`: runs, exports and reports from the command line."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from typer.testing import CliRunner, Result

from optiprune import solvers
from optiprune.bench import instances
from optiprune.bench.instances import MANIFEST, BestKnown, Instance, export_suite
from optiprune.bench.instances.instance import hex_of
from optiprune.bench.protocol import GROUPS
from optiprune.bench.records import JOURNAL, read_journal
from optiprune.cli import app
from optiprune.problems import CardinalityQP, layer_problem, maxcut_qubo, read_problem
from optiprune.problems.files import write_problem
from optiprune.solvers import BaseSolver, Capabilities, Outcome


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "160"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "mine"
    path.mkdir()
    write_problem(CardinalityQP([[1.0, 0, 0], [0, 2, 0], [0, 0, 4]], k=2), path / "three.npz")
    return path


OWN = """
from dataclasses import dataclass
import numpy as np
from optiprune.problems import CardinalityQP
from optiprune.solvers import BaseSolver, Capabilities, Outcome, Status

@dataclass(frozen=True)
class Swaps(BaseSolver):
    name = "swaps"
    capabilities = Capabilities(frozenset({CardinalityQP}))
    rounds: int = 1

    def _solve(self, problem, x0, seed, watch):
        x = np.arange(problem.n) < problem.k[0]
        watch.offer(problem.energy(x))
        return Outcome(x, Status.FEASIBLE, watch.stats("completed"))
"""
KILLED = """
import os
from pathlib import Path
from optiprune.bench.instances import suite
from optiprune.bench.protocol import Protocol, parse_solvers, run_bench

run_bench(
    suite({suite!r}),
    parse_solvers("greedy"),
    Protocol((0.01,), 1),
    Path({out!r}),
    isolate=False,
    tell=lambda _: os._exit(9),
)
"""


@dataclass(frozen=True)
class CardinalityOnly(BaseSolver):
    """Takes nothing else."""

    name: ClassVar[str] = "cardinality-only"
    capabilities: ClassVar[Capabilities] = Capabilities(frozenset({CardinalityQP}))

    def _solve(self, problem: Any, x0: Any, seed: Any, watch: Any) -> Outcome:
        raise AssertionError("never asked")


def bench(suite: object, out: Path, *more: object, plots: bool = False) -> Result:
    always = ["--suite", suite, "--budget", "0.02", "--seeds", 2, "--no-isolate", "--out", out]
    return run("bench", "solvers", *always, "--plots" if plots else "--no-plots", *more)


def test_a_run_prints_tables_and_leaves_every_file(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = bench(folder, out, "--solvers", "greedy,exhaustive")
    assert result.exit_code == 0, result.output
    assert "n = 3, 0.02 s: 1 instances, 1 of them with a proven optimum" in result.output
    assert "greedy" in result.output
    assert "2 proven" in result.output
    names = {p.name for p in out.iterdir()}
    assert {JOURNAL, "results.csv", "summary.csv", "summary.json", "best-known.json"} <= names
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert len(rows) == 4
    assert {float(r["energy"]) for r in rows} == {3.0}
    (best,) = json.loads((out / "best-known.json").read_text()).values()
    assert (best["instance"], best["energy"], best["bound"]) == ("three", 3.0, 3.0)
    assert best["x"] == "c0"
    assert best["proven_by"] == "exhaustive"
    summary = json.loads((out / "summary.json").read_text())
    assert summary["faults"] == []
    assert {r["solver"] for r in summary["rows"]} == {"greedy", "exhaustive"}
    assert "machine" in summary["sessions"][0]


def test_figures_are_drawn_as_png_and_svg(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "out"
    assert bench(folder, out, "--solvers", "greedy,tabu", plots=True).exit_code == 0
    for stem in ("profile", "time-to-target", "gap-over-time"):
        png = (out / "figures" / f"{stem}-0.02s.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        svg = (out / "figures" / f"{stem}-0.02s.svg").read_text()
        assert "<svg" in svg
    assert "greedy" in (out / "figures" / "profile-0.02s.svg").read_text()  # text stays text


def test_a_report_is_made_again_without_a_solve(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    bench(folder, out, "--solvers", "greedy")
    before = (out / JOURNAL).read_bytes()
    (out / "summary.csv").unlink()
    result = run("bench", "report", out, "--target-gap", 0.01, "--no-plots")
    assert result.exit_code == 0, result.output
    assert "greedy" in result.output
    assert (out / "summary.csv").exists()
    assert (out / JOURNAL).read_bytes() == before


def test_a_suite_is_written_beside_the_results_and_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--solvers", "greedy", "--sizes", "12", "--count", 1]
    assert bench("generators", out, *arguments).exit_code == 0
    assert (out / "instances" / MANIFEST).exists()
    assert bench("generators", out, *arguments).exit_code == 0
    other = bench("generators", out, "--solvers", "greedy", "--sizes", "14", "--count", 1)
    assert other.exit_code == 2
    assert "choose another --out" in other.output


def test_sizes_are_the_same_however_they_are_typed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    rest = ["--solvers", "greedy", "--count", 1, "--match", "layer*"]
    assert bench("generators", out, *rest, "--sizes", "12, 16").exit_code == 0
    again = bench("generators", out, *rest, "--sizes", "16 ,12")
    assert again.exit_code == 0, again.output
    manifest = out / "instances" / MANIFEST
    table = json.loads(manifest.read_text())
    assert table["request"]["sizes"] == [12, 16]
    table["request"]["sizes"] = "12,16"  # as manifests of before had them
    manifest.write_text(json.dumps(table))
    assert bench("generators", out, *rest, "--sizes", "12,16").exit_code == 0


def test_one_results_folder_holds_one_suite(folder: Path, tmp_path: Path) -> None:
    generated, own = tmp_path / "generated", tmp_path / "own"
    small = ["--solvers", "greedy", "--sizes", "12", "--count", 1, "--match", "layer*"]
    assert bench("generators", generated, *small).exit_code == 0
    assert bench(folder, own, "--solvers", "greedy").exit_code == 0
    for suite, out, more in ((folder, generated, small[:2]), ("generators", own, small)):
        before = (out / JOURNAL).read_bytes()
        result = bench(suite, out, *more)
        assert result.exit_code == 2
        assert "holds results on another suite" in result.output
        assert "choose another --out" in result.output
        assert (out / JOURNAL).read_bytes() == before
    assert not (own / "instances").exists()
    # more files of the same folder are welcome, and so are the kept instances by their own name
    write_problem(CardinalityQP([[1.0, 0], [0, 2]], k=1), folder / "two.npz")
    assert bench(folder, own, "--solvers", "greedy", "--match", "two").exit_code == 0
    assert bench(generated / "instances", generated, "--solvers", "greedy").exit_code == 0


def test_a_run_that_was_killed_is_reported_against_what_was_known(tmp_path: Path) -> None:
    """A planted optimum is no hit of the best of those that missed it."""
    problem = layer_problem(12, 6, seed=3)
    best = solvers.get("exhaustive").solve(problem)
    assert best.x is not None
    claim = BestKnown(best.energy, "planted", hex_of(best.x), best.energy, "planted")
    source = partial(layer_problem, 12, 6, seed=3)
    one = Instance.of("one", problem, source, family="f", recipe="r", best=claim)
    export_suite([one], tmp_path / "set")
    out = tmp_path / "out"
    script = tmp_path / "killed.py"
    script.write_text(KILLED.format(suite=str(tmp_path / "set"), out=str(out)))
    assert subprocess.run([sys.executable, script], check=False).returncode == 9
    assert read_journal(out)[-1]["type"] == "solve"
    assert not (out / "summary.json").exists()
    result = run("bench", "report", out, "--no-plots")
    assert result.exit_code == 0, result.output
    (known,) = json.loads((out / "best-known.json").read_text()).values()
    assert (known["found_by"], known["bound"], known["instance"]) == ("planted", best.energy, "one")


@pytest.mark.parametrize("isolate", ["--isolate", "--no-isolate"])
def test_a_solver_of_ones_own_lies_in_the_folder_that_one_works_in(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isolate: str
) -> None:
    name = f"swaps_{isolate.strip('-').replace('-', '_')}"  # a module is imported once
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    result = bench(folder, out, "--solvers", f"{name}:Swaps,{name}:Swaps:rounds=3,greedy", isolate)
    assert result.exit_code == 0, result.output
    solves = [r for r in read_journal(out) if r["type"] == "solve"]
    assert {(r["solver"], r["status"]) for r in solves} == {
        (f"{name}:Swaps", "feasible"),
        (f"{name}:Swaps:rounds=3", "feasible"),
        ("greedy", "feasible"),
    }
    assert str(tmp_path) not in sys.path


def test_nothing_measured_is_no_success(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = bench(folder, out, "--solvers", "x@dimod:sampler=no_such_module:Sampler")
    assert result.exit_code == 2
    assert "nothing can be measured" in result.output
    write_problem(maxcut_qubo([[0, 1.0], [1.0, 0]]), folder / "cut.npz")
    (folder / "three.npz").unlink()
    for _ in range(2):  # also when all has been skipped before
        result = bench(folder, out, "--solvers", f"{__name__}:CardinalityOnly")
        assert result.exit_code == 2
        assert "nothing was measured: solver 'cardinality-only' does not take QUBO" in result.output
    result = run("bench", "report", out, "--no-plots")
    assert result.exit_code == 2
    assert "nothing was measured" in result.output


def test_an_export_goes_into_a_folder_of_its_own(folder: Path, tmp_path: Path) -> None:
    public = tmp_path / "public"
    public.mkdir()
    (public / ".three.npz.x1y2.npz").write_text("what a kill left")
    assert run("bench", "export", "--suite", folder, "--out", public).exit_code == 0
    again = run("bench", "export", "--suite", folder, "--out", public)
    assert again.exit_code == 2
    assert "choose another folder, or remove this one if it is what an export that was ended" in (
        again.output.replace("\n", " ")
    )


def test_a_format_is_refused_before_any_instance_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr(instances, "suite", lambda name, *_: made.append(name))
    result = run("bench", "export", "--out", tmp_path / "public", "--format", "npz,foo")
    assert result.exit_code == 2
    assert "unknown format 'foo'; valid: npz" in result.output
    assert not made


def test_the_help_names_every_group() -> None:
    text = "".join(run("bench", "solvers", "--help").output.split())  # lines end at hyphens
    assert all(group in text for group in GROUPS)


def test_an_export_carries_what_a_run_found(folder: Path, tmp_path: Path) -> None:
    out, public = tmp_path / "out", tmp_path / "public"
    bench(folder, out, "--solvers", "exhaustive")
    arguments = ["--suite", folder, "--out", public, "--format", "npz,json,lp"]
    result = run("bench", "export", *arguments, "--best-known", out)
    assert result.exit_code == 0, result.output
    assert "1 instances (1 with a best known answer)" in result.output
    (entry,) = json.loads((public / MANIFEST).read_text())["instances"]
    assert entry["best_known"]["energy"] == 3.0
    assert entry["best_known"]["found_by"] == "exhaustive"
    assert [f["format"] for f in entry["files"]] == ["npz", "json", "lp"]
    assert read_problem(public / "three.npz").energy([1, 1, 0]) == 3.0
    again = run("bench", "export", *arguments)
    assert again.exit_code == 2
    assert "not empty" in again.output
    # the exported set is a suite, with its best known answers
    second = bench(public, tmp_path / "second", "--solvers", "greedy", "--to-target")
    assert second.exit_code == 0, second.output
    assert "1 of them with a proven optimum" in second.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "no-such"], "no suite or folder 'no-such'"),
        (["--solvers", "anealing"], "no solver 'anealing'"),
        (["--budget", "soon"], "--budget takes numbers"),
        (["--budget", ""], "--budget takes numbers, separated by commas; got ''"),
        (["--sizes", ""], "--sizes takes numbers, separated by commas; got ''"),
        (["--solvers", "greedy,tabu:tenure=x"], "tenure"),
        (["--solvers", "greedy,tabu:tenrue=5"], "did you mean 'tenure'?"),
        (["--solvers", "greedy,x@greedy"], "name it once"),
        (["--budget", "0"], "a budget is a positive number"),
        (["--seeds", "0"], "seeds must be >= 1"),
        (["--target-gap", "-1"], "--target-gap must be >= 0"),
        (["--sizes", "1"], "sizes must be >= 2"),
    ],
)
def test_bad_input_is_said(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = run("bench", "solvers", "--out", tmp_path / "out", "--suite", "maxcut", *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "out" / JOURNAL).exists()


def test_a_report_of_nothing(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nosuch"):
        result = run("bench", "report", folder)
        assert result.exit_code == 2
        assert "holds no results" in result.output
        assert "optiprune bench solvers --out" in result.output
        assert "Errno" not in result.output
