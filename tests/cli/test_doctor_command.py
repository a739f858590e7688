"""`optiprune doctor`: what it shows, and what it complains of."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner, Result

from optiprune.cli import app, doctor


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *arguments], env={"COLUMNS": "200"})


def test_all_is_well_here() -> None:
    result = run()
    assert result.exit_code == 0, result.output
    for text in ("torch", "numba", "memory available", "cores"):
        assert text in result.output


def test_every_core_requirement_is_looked_at() -> None:
    found = {p.name: p for p in doctor.packages()}
    core = {"numpy", "scipy", "numba", "torch", "highspy", "pyomo", "dimod", "psutil", "filelock"}
    assert core <= {name for name, p in found.items() if not p.extra}
    assert found["matplotlib"].extra == "plot"
    assert "pytest" not in found


def test_json_for_a_report() -> None:
    table = json.loads(run("--json").output)
    assert table["system"]["cores"] >= 1
    assert {p["name"] for p in table["packages"]} >= {"torch", "numpy"}


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.importlib.metadata.version

    def version(name: str) -> str:
        if name == "highspy":
            raise doctor.importlib.metadata.PackageNotFoundError(name)
        return "0.1" if name == "dimod" else real(name)

    monkeypatch.setattr(doctor.importlib.metadata, "version", version)
    result = run()
    assert result.exit_code == 1
    assert "! highspy is missing, needed is >=1.8: pip install 'highspy>=1.8'" in result.output
    assert "! dimod is 0.1, needed is" in result.output


def test_an_extra_that_is_not_installed_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.importlib.metadata.version

    def version(name: str) -> str:
        if name == "pyarrow":
            raise doctor.importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor.importlib.metadata, "version", version)
    assert run().exit_code == 0


def test_little_memory_and_too_many_threads() -> None:
    system = {
        "memory_available": 2**30,
        "cores": 2,
        "environment": {"OMP_NUM_THREADS": "64"},
        "temporary_folder_writable": False,
    }
    texts = list(doctor._complaints([], system))
    assert [t.split()[0] for t in texts] == ["1.0", "OMP_NUM_THREADS", "the"]


def test_a_package_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.importlib.import_module

    def fails(name: str) -> object:
        if name == "highspy":
            raise ImportError("libx.so.1: cannot open shared object file")
        return real(name)

    monkeypatch.setattr(doctor.importlib, "import_module", fails)
    result = run()
    assert result.exit_code == 1
    assert "! highspy is installed and cannot be imported (ImportError: libx.so.1" in result.output
    assert "nothing is wrong" not in result.output


def test_extras_that_are_missing_have_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.importlib.metadata.version

    def version(name: str) -> str:
        if name in ("matplotlib", "pyarrow"):
            raise doctor.importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor.importlib.metadata, "version", version)
    result = run()
    assert result.exit_code == 0
    (line,) = (x for x in result.output.splitlines() if x.startswith("extras that are not"))
    assert "parquet" in line
    assert "plot" in line
