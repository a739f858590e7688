"""The repository around the package: targets, links, packaging, documentation."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from optiprune.cli.run_config import RunConfig
from optiprune.config import explain

ROOT = Path(__file__).resolve().parent.parent

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("name", ["problems", "solvers"])
def test_links_lead_into_the_package(name: str) -> None:
    link = ROOT / name
    assert link.is_symlink()
    assert not os.path.isabs(os.readlink(link))
    assert link.resolve() == ROOT / "optiprune" / name
    assert (link / "__init__.py").is_file()


@pytest.mark.parametrize("name", ["problems", "solvers"])
def test_a_bare_import_of_a_link_is_refused(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert f"import it as 'optiprune.{name}'" in done.stderr


@pytest.mark.parametrize(
    "target",
    ["demo", "test", "lint", "bench", "docs", "clean", "format", "audit", "sbom", "release-check"],
)
def test_make_knows_the_target(target: str) -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    done = subprocess.run(
        [make, "--dry-run", "--no-print-directory", target],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("MAKE")},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_make_bench_runs_modules_that_exist() -> None:
    modules = re.findall(r"python -m (benchmarks[.\w]*)", (ROOT / "Makefile").read_text())
    assert modules
    for module in modules:
        assert (ROOT / (module.replace(".", "/") + ".py")).is_file(), module


def test_make_test_runs_every_check_and_pytest_last() -> None:
    makefile = (ROOT / "Makefile").read_text()
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    test = re.search(r"^test: lint docs\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    docs = re.search(r"^docs: .*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert lint
    assert docs
    assert "mkdocs build --strict" in docs[1]
    assert test
    for check in ("ruff check", "ruff format --check", "mypy", "lint-imports"):
        assert check in lint[1]
    assert "pytest" in test[1].splitlines()[-1]


def test_the_environment_follows_its_inputs() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^\$\(DEV\): pyproject.toml constraints.txt", makefile, re.MULTILINE)
    assert "-c constraints.txt" in makefile


def test_ci_runs_make_test() -> None:
    run = ROOT / ".ci" / "run"
    assert os.access(run, os.X_OK)
    text = run.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "exec make test" in text


def test_licence_is_mit(project: dict) -> None:
    assert project["project"]["license"] == "MIT"
    text = (ROOT / "LICENSE").read_text()
    assert "MIT License" in text
    assert "without restriction" in text


def test_packaging(project: dict) -> None:
    from importlib.metadata import entry_points, version

    import optiprune

    assert (ROOT / "optiprune" / "py.typed").is_file()
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["optiprune"]
    assert project["project"]["scripts"] == {"optiprune": "optiprune.cli:main"}
    (script,) = (e for e in entry_points(group="console_scripts") if e.name == "optiprune")
    assert script.value == "optiprune.cli:main"
    assert version("optiprune") == optiprune.__version__


def test_every_extra_that_dev_and_the_texts_name_exists(project: dict) -> None:
    extras = set(project["project"]["optional-dependencies"])
    texts = [ROOT / "README.md", *(ROOT / "docs").glob("**/*.md"), ROOT / "pyproject.toml"]
    texts += (ROOT / "optiprune").glob("**/*.py")
    named = {
        extra.strip()
        for path in texts
        for group in re.findall(r"(?:optiprune|install '?\.)\[([a-z, -]+)\]", path.read_text())
        for extra in group.split(",")
    }
    assert "demo" in named
    assert named <= extras


def test_torch_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert any(re.fullmatch(r"torch==[\d.]+", line) for line in lines)


def test_links_in_the_texts_lead_somewhere() -> None:
    pages = [ROOT / n for n in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    pages += sorted((ROOT / "docs").glob("**/*.md"))
    checked = 0
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                checked += 1
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
    assert checked > 10


def test_readme_names_every_built_in_solver() -> None:
    from optiprune.solvers import registry

    readme = (ROOT / "README.md").read_text()
    for name in registry._BUILT_IN:
        assert f"| `{name}` |" in readme


def test_documentation_holds_every_option() -> None:
    hooks = runpy.run_path(str(ROOT / "docs" / "hooks.py"))
    page = hooks["on_page_markdown"]((ROOT / "docs" / "config.md").read_text())
    section = None
    rows = set()
    for line in page.splitlines():
        if line.startswith("## "):
            match = re.search(r"`\[(.+)\]`", line)
            section = match[1] if match else ""
        elif row := re.match(r"\| `(\w+)` \| .* \| `.*` \| \S.* \|$", line):
            rows.add(f"{section}.{row[1]}" if section else row[1])
    assert rows == {key for key, *_ in explain(RunConfig)}
    assert "[model]\n" in page  # the template


def test_documentation_asks_only_for_tables_that_exist() -> None:
    hooks = runpy.run_path(str(ROOT / "docs" / "hooks.py"))
    asked = {
        name
        for page in (ROOT / "docs").glob("**/*.md")
        for name in hooks["MARKER"].findall(page.read_text())
    }
    assert asked == set(hooks["TABLES"])
    with pytest.raises(KeyError):
        hooks["on_page_markdown"]("<!-- table: no-such-table -->")


def test_every_docs_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    docs = ROOT / "docs"
    for page in docs.glob("**/*.md"):
        assert f"- {page.relative_to(docs).as_posix()}\n" in navigation


def test_the_documentation_shows_every_result_file_once() -> None:
    hooks = runpy.run_path(str(ROOT / "docs" / "hooks.py"))
    pages = [p.read_text(encoding="utf-8") for p in (ROOT / "docs").rglob("*.md")]
    shown = "\n".join(hooks["on_page_markdown"](page) for page in pages)
    results = ROOT / "benchmarks" / "results"
    files = [p for kind in ("*.md", "*.txt") for p in results.rglob(kind)]
    assert len(files) > 20
    for file in files:
        heading = f"### `{file.relative_to(results).as_posix()}`\n"
        assert shown.count(heading) == 1, heading
    table = (results / "planning.md").read_text().splitlines()[-1]
    assert table in shown
    with pytest.raises(FileNotFoundError):
        hooks["on_page_markdown"]("<!-- result: no-such-file.md -->")


def test_what_is_for_the_tests_is_not_shown() -> None:
    hooks = runpy.run_path(str(ROOT / "docs" / "hooks.py"))
    page = "Text\n\n<!-- setup\nhidden = 1\n-->\n\n<!-- not run: minutes -->\n\n```bash\nls\n```\n"
    shown = hooks["on_page_markdown"](page)
    assert "hidden" not in shown
    assert "minutes" not in shown
    assert "```bash\nls\n```" in shown
