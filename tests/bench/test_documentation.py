"""The page on the bench tells of every name that there is."""

from __future__ import annotations

from pathlib import Path

from optiprune.bench.instances import FORMATS, SUITES
from optiprune.bench.instances.cutting import FAMILIES, SIZES
from optiprune.bench.protocol import ALIASES, GROUPS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "bench.md").read_text(encoding="utf-8")


def test_every_name_is_told() -> None:
    for name in [*SUITES, *FAMILIES, *GROUPS]:
        assert f"`{name}`" in PAGE
    tuned = {a for group, members in GROUPS.items() if "-tuned" in group for a in members}
    for name in set(ALIASES) - tuned:
        assert f"`{name}`" in PAGE
    assert ", ".join(map(str, SIZES)) in PAGE
    assert {"npz", "bqp", "lp", "json"} <= set(FORMATS)
