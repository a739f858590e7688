"""What importing the two torch-free packages loads, and that the linter would notice torch."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINTER = Path(sys.executable).with_name("lint-imports")


def python(code: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=cwd
    )


@pytest.mark.parametrize(
    "code",
    [
        "import optiprune",
        "import optiprune.problems, optiprune.problems.exchange, optiprune.problems.generators",
        "import optiprune.solvers",
        "from optiprune import problems, solvers",
        # every solver but one, made and used, adapters included
        "from optiprune import problems, solvers\n"
        "p = problems.CardinalityQP([[1.0, 0], [0, 2]], k=1)\n"
        "from importlib.util import find_spec\n"
        "missing = set() if find_spec('ortools') else {'cp-sat'}\n"
        "for name in set(solvers.names()) - {'torch'} - missing:\n"
        "    assert solvers.get(name).solve(p).energy == 1.0, name",
        # that one, made, asked and refused, and all of its modules
        "import pkgutil\n"
        "from importlib import import_module\n"
        "from optiprune import problems, solvers\n"
        "solver = solvers.get('torch', device='cuda:1', sweeps=3)\n"
        "assert solver.name in solvers.names() and solver.capabilities.problems\n"
        "try:\n"
        "    solver.solve(problems.BudgetQP([[1.0]], A=[1], upper=1))\n"
        "except solvers.UnsupportedProblemError:\n"
        "    pass\n"
        "import optiprune.solvers.device as device\n"
        "found = [import_module(m.name) for m in\n"
        "         pkgutil.walk_packages(device.__path__, device.__name__ + '.')]\n"
        "assert len(found) > 5",
    ],
)
def test_neither_torch_nor_matplotlib_is_loaded(code: str) -> None:
    check = "\nimport sys\nassert not {'torch', 'matplotlib'} & set(sys.modules), 'loaded'"
    done = python(code + check)
    assert done.returncode == 0, done.stderr


def test_torch_is_loaded_by_the_solve_that_needs_it() -> None:
    code = """
import sys
from optiprune import problems, solvers
p = problems.CardinalityQP([[1.0, 0], [0, 2]], k=1)
solver = solvers.get("torch", device="cpu")
assert "torch" not in sys.modules
assert solver.solve(p).energy == 1.0
assert "torch" in sys.modules
"""
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_back_ends_are_loaded_only_when_used() -> None:
    code = """
import sys
from optiprune import solvers
solvers.names()
lazy = {"highspy", "pyomo", "dimod", "dwave", "pyscipopt", "numba", "torch"}
loaded = lazy & set(sys.modules)
assert not loaded, loaded
"""
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_the_lazy_top_level_still_knows_its_names() -> None:
    done = python(
        "import optiprune\n"
        "assert {'solvers', 'problems', 'optimize_masks'} <= set(dir(optiprune))\n"
        "assert optiprune.solvers.get('greedy').name == 'greedy'\n"
        "try:\n"
        "    optiprune.no_such_name\n"
        "except AttributeError as e:\n"
        "    assert 'no_such_name' in str(e)\n"
        "else:\n"
        "    raise SystemExit('no AttributeError')\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package and the contracts, apart from the repository."""
    if not LINTER.exists():
        pytest.skip("import-linter is not installed (pip install -e '.[dev]')")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "optiprune", tmp_path / "optiprune", ignore=skip)
    return tmp_path


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    # an editable install also knows 'optiprune': the folder's own copy must come first
    return subprocess.run(
        [str(LINTER), "--no-cache"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
    )


def test_the_clean_copy_keeps_the_contracts(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("solvers/check.py", "import torch", "torch"),
        ("solvers/native/greedy.py", "def late():\n    import torch.nn", "torch"),
        ("solvers/registry.py", "def late():\n    import torch", "torch"),
        ("solvers/device/run.py", "import matplotlib", "matplotlib"),
        ("problems/binary.py", "import matplotlib", "matplotlib"),
        ("problems/base.py", "import optiprune.solvers.stop", "one way"),
        ("solvers/stop.py", "import optiprune.engine", "one way"),
    ],
)
def test_a_forbidden_import_fails_the_linter(
    copy: Path, file: str, line: str, contract: str
) -> None:
    target = copy / "optiprune" / file
    target.write_text(target.read_text() + f"\n{line}\n")
    done = lint(copy)
    assert done.returncode != 0, done.stdout
    broken = [row for row in done.stdout.splitlines() if " BROKEN" in row]
    assert any(contract in row for row in broken), done.stdout
