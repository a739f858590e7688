"""The page on the bench: its Python runs, its commands and names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from optiprune.bench.instances import FORMATS, SUITES
from optiprune.bench.instances.cutting import FAMILIES, SIZES
from optiprune.bench.protocol import ALIASES, GROUPS
from optiprune.cli import app

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "bench.md").read_text(encoding="utf-8")


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    exec(compile(block, "bench.md", "exec", dont_inherit=True), {"__name__": "example"})
    assert "tabu 1.0" in capsys.readouterr().out


def test_every_option_of_its_commands_exists() -> None:
    blocks = "\n".join(re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
    commands = re.findall(r"optiprune bench (\w+)((?:[^\n\\]|\\\n)*)", blocks)
    assert {name for name, _ in commands} == {"solvers", "export"}
    for name, rest in commands:
        shown = CliRunner().invoke(app, ["bench", name, "--help"], env={"COLUMNS": "200"}).output
        for option in re.findall(r"--[a-z-]+", rest):
            assert option in shown, f"bench {name} has no {option}"


def test_every_name_is_told() -> None:
    for name in [*SUITES, *FAMILIES, *GROUPS]:
        assert f"`{name}`" in PAGE
    tuned = {a for group, members in GROUPS.items() if "-tuned" in group for a in members}
    for name in set(ALIASES) - tuned:
        assert f"`{name}`" in PAGE
    assert ", ".join(map(str, SIZES)) in PAGE
    assert {"npz", "bqp", "lp", "json"} <= set(FORMATS)
