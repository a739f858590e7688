"""The packages that a release is made of."""

from __future__ import annotations

import io
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

import optiprune
from tools.built import changelog_faults, sdist_faults, version_of, wheel_faults
from tools.release_check import build, check_installed

ROOT = Path(__file__).resolve().parents[2]


def test_the_version_stands_in_one_place() -> None:
    assert version_of(ROOT) == optiprune.__version__
    project = (ROOT / "pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in project
    assert f'"{optiprune.__version__}"' not in project


def test_the_changelog_follows_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert list(changelog_faults(text, optiprune.__version__, release=False)) == []


@pytest.mark.parametrize(
    ("text", "release", "fault"),
    [
        ("## [1.0.0] - 2026-01-31\n", True, None),
        ("## [Unreleased]\n\n## [0.9.0] - 2026-01-01\n", False, None),
        ("## [Unreleased]\n", True, "begins with"),
        ("## [0.9.0] - 2026-01-01\n", False, "the version is 1.0.0"),
        ("## [1.0.0]\n", True, "no date"),
        ("## [1.0.0] - 2026-01-31\n## [1.0.0] - 2026-01-31\n", True, "twice"),
        ("# Changes\n", False, "no heading"),
    ],
)
def test_changelog_faults(text: str, release: bool, fault: str | None) -> None:
    found = list(changelog_faults(text, "1.0.0", release=release))
    assert not found if fault is None else fault in found[0]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A repository of two files."""
    (tmp_path / "optiprune").mkdir()
    for name in ("__init__.py", "a.py"):
        (tmp_path / "optiprune" / name).write_text("")
    return tmp_path


def test_wheel_faults(small: Path) -> None:
    wheel = small / "x.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("optiprune/__init__.py", "solvers/base.py", "tests/test_x.py"):
            archive.writestr(name, "")
    found = list(wheel_faults(wheel, small))
    assert "the wheel lacks optiprune/a.py" in found
    assert "the wheel lacks optiprune/py.typed" in found
    assert "the wheel should not hold solvers/base.py" in found
    assert "the wheel should not hold tests/test_x.py" in found
    assert "the wheel lacks its LICENSE" in found


def test_sdist_faults(small: Path) -> None:
    sdist = small / "x.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        for name in ("optiprune/__init__.py", "solvers/base.py"):
            archive.addfile(tarfile.TarInfo(f"x-1/{name}"), io.BytesIO())
        link = tarfile.TarInfo("x-1/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
    found = list(sdist_faults(sdist, small))
    assert "the sdist lacks optiprune/a.py" in found
    assert any("solvers/base.py" in f and "second time" in f for f in found)
    assert "the sdist holds a link, link" in found


@pytest.mark.slow
def test_wheel_and_sdist_are_whole_and_work_elsewhere(tmp_path: Path) -> None:
    if find_spec("build") is None:
        pytest.skip("pip install 'optiprune[release]'")
    wheel, sdist = build(tmp_path / "dist")
    assert [*wheel_faults(wheel, ROOT), *sdist_faults(sdist, ROOT)] == []
    found = check_installed(wheel, full=False)
    assert found["density"] == pytest.approx(0.3, abs=0.01)
