"""`optiprune bench`: runs, exports and reports from the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from optiprune.bench.instances import MANIFEST
from optiprune.bench.records import JOURNAL
from optiprune.cli import app
from optiprune.problems import CardinalityQP, read_problem
from optiprune.problems.files import write_problem


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "160"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "mine"
    path.mkdir()
    write_problem(CardinalityQP([[1.0, 0, 0], [0, 2, 0], [0, 0, 4]], k=2), path / "three.npz")
    return path


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
    result = run("bench", "report", tmp_path)
    assert result.exit_code == 2
    assert "holds no results" in result.output
