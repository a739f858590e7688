"""A package that is installed beside optiprune brings a solver through its entry point."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent / "package"

USE_IT = """
import json
import sys
from optiprune import solvers
from optiprune.problems import CardinalityQP

loaded_early = "optiprune_first_fit" in sys.modules
names = solvers.names()
loaded_by_names = "optiprune_first_fit" in sys.modules
problem = CardinalityQP([[1.0, 0, 0], [0, 2, 0], [0, 0, 4]], k=2)
first = solvers.get("first-fit").solve(problem)
last = solvers.from_table({"name": "first-fit", "reverse": True}).solve(problem)
try:
    solvers.get("first-fit", revers=True)
except solvers.SolverOptionError as e:
    refused = str(e)
print(json.dumps({
    "early": loaded_early or loaded_by_names,
    "names": names,
    "x": [first.x.tolist(), last.x.tolist()],
    "energy": [first.energy, last.energy],
    "solver": first.stats.solver,
    "greedy": solvers.solver_class("greedy").__module__,
    "refused": refused,
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package installed into it by pip, without network."""
    build = tmp_path_factory.mktemp("third-party")
    source = shutil.copytree(PACKAGE, build / "source")  # the build leaves files beside the source
    target = build / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--disable-pip-version-check", "--target", str(target)]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def run(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=env,
        cwd=Path(__file__).parents[2],
    )


def test_the_solver_is_found_used_and_checked(installed: Path) -> None:
    done = run(USE_IT, installed)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert "first-fit" in seen["names"]
    assert "annealing" in seen["names"]
    assert not seen["early"]  # listing the names loads nobody's code
    assert seen["x"] == [[1, 1, 0], [0, 1, 1]]
    assert seen["energy"] == [3.0, 6.0]
    assert seen["solver"] == "first-fit"
    assert "did you mean 'reverse'" in seen["refused"]
    # built-in names win
    assert seen["greedy"].startswith("optiprune.solvers.native")


def test_without_the_package_the_name_is_unknown() -> None:
    done = run("from optiprune import solvers; solvers.get('first-fit')")
    assert done.returncode != 0
    assert "UnknownSolverError" in done.stderr
    assert "no solver 'first-fit'" in done.stderr


def test_a_broken_package_breaks_its_own_solver_only(installed: Path, tmp_path: Path) -> None:
    site = shutil.copytree(installed, tmp_path / "site")
    (site / "optiprune_first_fit.py").write_text("import a_module_that_nobody_has\n")
    code = """
from optiprune import solvers
assert "first-fit" in solvers.names()
solvers.get("annealing")
try:
    solvers.get("first-fit")
except solvers.SolverError as e:
    print(e)
"""
    done = run(code, site)
    assert done.returncode == 0, done.stderr
    assert "'first-fit' (optiprune_first_fit:FirstFit) cannot be loaded" in done.stdout
    assert "a_module_that_nobody_has" in done.stdout


def test_it_takes_part_in_the_bench(installed: Path, tmp_path: Path) -> None:
    arguments = ["bench", "solvers", "--suite", "generators", "--sizes", "12", "--count", "1"]
    arguments += ["--solvers", "first-fit:reverse=true,first-fit,greedy", "--budget", "0.2"]
    arguments += ["--seeds", "1", "--no-plots", "--out", str(tmp_path / "out")]
    code = f"import sys; sys.argv[1:] = {arguments!r}; from optiprune.cli import main; main()"
    done = run(code, installed)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out" / "journal.jsonl").read_text().splitlines()
    solves = [r for r in map(json.loads, lines) if r["type"] == "solve"]
    status = {(r["solver"], r["family"]): r["status"] for r in solves}
    for name in ("first-fit", "first-fit:reverse=true"):
        assert status[name, "layer"] == "feasible"
        assert status[name, "planted-qubo"] == "skipped"  # it takes no QUBO, and says so
        assert name in done.stdout
    energy = {(r["solver"], r["family"]): r.get("energy") for r in solves}
    assert energy["first-fit", "layer"] != energy["first-fit:reverse=true", "layer"]
    assert "does not take QUBO" in done.stderr
