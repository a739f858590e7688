"""The Python examples of the pages on problems and solvers run, in order, as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from optiprune import solvers
from optiprune.problems import layer_problem

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("page", "least"), [("problems.md", 7), ("solvers.md", 7), ("device.md", 1)]
)
def test_examples_run(
    page: str, least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))
    assert len(blocks) >= least
    names: dict[str, Any] = {"__name__": "example", "problem": layer_problem(24, 12)}
    try:
        for block in blocks:
            exec(compile(block, page, "exec", dont_inherit=True), names)
    finally:
        if "all-ones" in solvers.names():
            solvers.unregister("all-ones")
