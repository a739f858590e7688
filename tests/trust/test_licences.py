"""Licences of what is installed, and that the judge can say no."""

from __future__ import annotations

import json
import sys
from email.message import Message
from pathlib import Path

import pytest

from tools.audit import CLEAN, NOT_DONE, WEAK, audit
from tools.licences import judge, judged, licence_of


def test_core_requirements_have_licences_that_fit() -> None:
    found = judged()
    assert {"numpy", "scipy", "torch", "pydantic", "typer", "safetensors"} <= {
        p.name for p in found
    }
    assert [p for p in found if not p.fits] == []


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT", True),
        ("MIT AND GPL-3.0-only", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("(GPL-2.0-only OR MIT) AND BSD-3-Clause", True),
        ("(GPL-2.0-only OR AGPL-3.0-only) AND BSD-3-Clause", False),
        ("MIT AND", False),
        ("(MIT", False),
        ("Proprietary", False),
        ("none given", False),
        ("", False),
    ],
)
def test_judge(expression: str, fits: bool) -> None:
    assert judge(expression) is fits


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ([("License-Expression", "MIT")], "MIT"),
        ([("Classifier", "License :: OSI Approved :: BSD License")], "BSD"),
        ([("License", "Apache 2.0")], "Apache-2.0"),
        ([("License", "GNU GPL; some parts MIT")], "GNU GPL; some parts MIT"),
        ([], "none given"),
    ],
)
def test_licence_of(fields: list[tuple[str, str]], licence: str) -> None:
    message = Message()
    for name, value in fields:
        message[name] = value
    assert licence_of(message) == licence  # type: ignore[arg-type]


def program(tmp_path: Path, output: str, code: int = 0) -> tuple[str, ...]:
    """Stands in for pip-audit."""
    path = tmp_path / "program.py"
    path.write_text(f"import sys\nprint({output!r})\nsys.exit({code})\n")
    return sys.executable, str(path)


def test_an_audit_that_could_not_be_done_is_no_clean_one(tmp_path: Path) -> None:
    code, said = audit(program(tmp_path, "connection refused", 1))
    assert code == NOT_DONE
    assert "NOT DONE" in said
    nobody = [{"name": "numpy", "skip_reason": "offline"}]
    code, said = audit(program(tmp_path, json.dumps({"dependencies": nobody})))
    assert code == NOT_DONE
    assert audit((str(tmp_path / "missing"),))[0] == NOT_DONE


def test_an_audit_tells_what_is_known(tmp_path: Path) -> None:
    package = {"name": "numpy", "version": "1.0", "vulns": []}
    code, said = audit(program(tmp_path, json.dumps({"dependencies": [package]})))
    assert code == CLEAN
    assert "1 of" in said
    package["vulns"] = [{"id": "CVE-1"}]
    code, said = audit(program(tmp_path, json.dumps({"dependencies": [package]}), 1))
    assert code == WEAK
    assert "! numpy 1.0: CVE-1" in said
