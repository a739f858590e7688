"""Named sets of options: what a preset says holds where the user says nothing.

How they were chosen, on which models, and what they cost: ``docs/presets.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

__all__ = ["PRESETS", "Preset", "with_preset"]

Preset = Literal["fast", "balanced", "best"]

# "balanced" is the options' own defaults
PRESETS: dict[Preset, dict[str, dict[str, Any]]] = {
    "fast": {
        "allocation": {"method": "uniform"},
        "batches": {"steps": 10, "sweeps": 1},
        "curvature": {"inputs": "dense"},
        "initial": {"method": "magnitude"},
        "joint": {"rounds": 0, "sweeps": 0},
        "refit": {"damping": 0.03, "tolerance": 1e-4},
        "tune": {"epochs": 0},
    },
    "balanced": {},
    "best": {
        "batches": {"steps": 200, "sweeps": 3},
        "joint": {"rounds": 4, "rows": 1_000_000, "sweeps": 8},
        "tune": {"work": 2e13},
    },
}


def with_preset(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table with the options of its ``preset`` under its own; as it is if that is none."""
    name = table.get("preset")
    out = dict(table)
    chosen = next((options for key, options in PRESETS.items() if key == name), {})
    for section, options in chosen.items():
        own = out.get(section, {})
        if isinstance(own, Mapping):
            out[section] = {**options, **own}
    return out
