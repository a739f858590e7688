"""`optiprune solve`: the answer, the exit codes and the solution file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from optiprune.cli import app
from optiprune.problems import BudgetQP, CardinalityQP
from optiprune.problems.files import write_problem


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "160"})


@pytest.fixture
def problem_file(tmp_path: Path) -> Path:
    # keeping 0 and 1: 1 + 1 - 2 = 0; any other pair: 1 + 0.5 = 1.5
    Q = np.zeros((3, 3))
    Q[0, 1] = Q[1, 0] = -1.0
    path = tmp_path / "three.npz"
    write_problem(CardinalityQP(Q, [1.0, 1.0, 0.5], offset=10.0, k=2), path)
    return path


def test_prints_the_optimum_and_writes_it(problem_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "solution.json"
    result = run("solve", problem_file, "--solver", "exhaustive", "--out", out)
    assert result.exit_code == 0, result.output
    for text in ("CardinalityQP, n = 3", "exhaustive", "optimal", "2 of 3 are 1: 110"):
        assert text in result.output
    saved = json.loads(out.read_text())
    assert saved["x"] == [1, 1, 0]
    assert saved["energy"] == pytest.approx(10.0)
    assert saved["status"] == "optimal"
    assert saved["problem"] == {"file": str(problem_file), "type": "CardinalityQP", "n": 3}
    assert saved["solver"] == {"name": "exhaustive"}


def test_auto_is_the_default_solver(problem_file: Path) -> None:
    result = run("solve", problem_file)
    assert result.exit_code == 0, result.output
    assert "2 of 3 are 1: 110" in result.output


def test_a_solver_of_ones_own_lies_in_the_folder_that_one_works_in(
    problem_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "solver_of_ones_own.py").write_text(
        "from optiprune.solvers.native.exhaustive import Exhaustive\n"
        "class Mine(Exhaustive):\n    name = 'mine'\n"
    )
    monkeypatch.chdir(tmp_path)
    result = run("solve", problem_file, "--solver", "solver_of_ones_own:Mine")
    assert result.exit_code == 0, result.output
    assert "2 of 3 are 1: 110" in result.output
    assert "mine" in result.output
    for name, message in (
        ("solver_of_ones_own:Yours", "has no attribute 'Yours'"),
        ("no_such_module:Mine", "No module named 'no_such_module'"),
        ("mine", "'module:Class', or by an entry point of the group 'optiprune.solvers'"),
    ):
        result = run("solve", problem_file, "--solver", name)
        assert result.exit_code == 2
        assert message in result.output


def test_settings_and_limits_reach_the_solver(problem_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "solution.json"
    arguments = ["--set", "sweeps=7", "--iterations", 1000, "--time", 5, "--seed", 3]
    result = run("solve", problem_file, "-s", "annealing", *arguments, "--out", out)
    assert result.exit_code == 0, result.output
    saved = json.loads(out.read_text())
    assert saved["solver"] == {"name": "annealing", "sweeps": 7}
    assert saved["seed"] == 3
    assert saved["stats"]["moves"] <= 1000 + 1000  # a chunk may be finished


def test_a_solution_file_is_a_warm_start(problem_file: Path, tmp_path: Path) -> None:
    first = tmp_path / "first.json"
    assert run("solve", problem_file, "-s", "exhaustive", "--out", first).exit_code == 0
    second = tmp_path / "second.json"
    result = run("solve", problem_file, "-s", "greedy", "--start", first, "--out", second)
    assert result.exit_code == 0, result.output
    # a feasible start is never made worse, and this one is the optimum
    assert json.loads(second.read_text())["energy"] == pytest.approx(10.0)


def test_exit_code_1_when_there_is_no_solution(tmp_path: Path) -> None:
    path = tmp_path / "contradiction.npz"
    rows = [[1.0, 1.0], [1.0, 1.0]]
    # each row alone can be met, both together cannot
    problem = BudgetQP(np.eye(2), A=rows, lower=[2.0, -np.inf], upper=[np.inf, 1.0])
    write_problem(problem, path)
    out = tmp_path / "solution.json"
    result = run("solve", path, "--solver", "highs", "--out", out)
    assert result.exit_code == 1, result.output
    assert "infeasible" in result.output
    saved = json.loads(out.read_text())
    assert saved["x"] is None
    assert saved["energy"] is None


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--solver", "anealing"], "did you mean 'annealing'?"),
        (["--solver", "annealing", "--set", "sweps=3"], "did you mean 'sweeps'?"),
        (["--set", "sweeps"], "key=value"),
        (["--set", "a=1", "--set", "a=2"], "twice"),
        (["--time", "-1"], "time limit must be >= 0"),
        (["--seed", "-1"], "seed must be an integer >= 0"),
        (["--out", "/nowhere/at/all.json"], "there is no folder"),
        (["--format", "xml"], "unknown format 'xml'"),
        (["--max-n", "2"], "n = 3 is above the limit of 2"),
        (["--start", __file__], "not a solution file"),
        (["--set", "name=x"], "has no option 'name'"),
        (["--out", "/"], "is a folder"),
        (["--instance", "1"], "npz file holds one problem"),
    ],
)
def test_bad_arguments(problem_file: Path, arguments: list[str], complaint: str) -> None:
    result = run("solve", problem_file, *arguments)
    assert result.exit_code == 2, result.output
    assert complaint in result.stderr
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[" * 100_000, "not a solution file"),
        ('{"x": null}', "holds no solution"),
        ('{"x": [1, [2, 3]]}', "not a solution file"),
        ('{"x": [1, 0]}', "shape (2,)"),
        ('{"x": [1, 0, 2]}', "0 and 1 only"),
        ('{"x": ["a", "b", "c"]}', "0 and 1 only"),
        ('{"y": 1}', "not a solution file"),
        ("[1, 2]", "not a solution file"),
    ],
)
def test_bad_starts(problem_file: Path, tmp_path: Path, text: str, complaint: str) -> None:
    start = tmp_path / "start.json"
    start.write_text(text)
    result = run("solve", problem_file, "--start", start)
    assert result.exit_code == 2, result.output
    assert complaint in result.stderr
    assert "unexpected" not in result.stderr


def test_a_failed_write_leaves_the_old_solution(
    problem_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "solution.json"
    out.write_text("old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    result = run("solve", problem_file, "-s", "greedy", "--out", out)
    assert result.exit_code == 2
    assert "disk full" in result.stderr
    assert out.read_text() == "old"


def test_files_with_several_instances(tmp_path: Path) -> None:
    path = tmp_path / "several.bqp"
    path.write_text("2\n2 1\n1 1 5\n3 1\n2 2 7\n")
    result = run("solve", path)
    assert result.exit_code == 2
    assert "2 instances; say which" in result.stderr
    result = run("solve", path, "--instance", 2)
    assert result.exit_code == 0, result.output
    assert "QUBO, n = 3" in result.output
    assert run("solve", path, "--instance", 3).exit_code == 2


def test_bad_files(tmp_path: Path) -> None:
    missing = run("solve", tmp_path / "missing.npz")
    assert missing.exit_code == 2
    assert "missing.npz" in missing.stderr
    broken = tmp_path / "broken.bqp"
    broken.write_text("2 2\n1 1 5\n")
    result = run("solve", broken)
    assert result.exit_code == 2
    assert "broken.bqp:" in result.stderr
    strange = tmp_path / "problem.xyz"
    strange.write_text("1")
    assert "suffix" in run("solve", strange).stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = run("solve", tmp_path / "missing.npz", "--debug")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr


def test_as_a_program_without_torch(problem_file: Path) -> None:
    """The real process: exit code, output, and no torch for a command that needs none."""
    code = (
        "import sys\n"
        "from optiprune.cli import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    assert 'torch' not in sys.modules, 'solve loaded torch'\n"
    )
    arguments = ["solve", str(problem_file), "--solver", "exhaustive"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "optimal" in done.stdout
    version = subprocess.run(
        [sys.executable, "-m", "optiprune", "--version"], capture_output=True, text=True, timeout=60
    )
    assert version.returncode == 0
    assert version.stdout.startswith("optiprune ")
