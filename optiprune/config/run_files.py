"""Names of the files in the folder of a run, shared by what writes and what reads them."""

from __future__ import annotations

__all__ = ["CONFIG", "HISTORY", "MASKS", "MODEL", "SUMMARY", "UNFINISHED"]

CONFIG = "config.toml"
SUMMARY = "summary.json"
# those that the [output] section may change
MASKS = "masks.safetensors"
MODEL = "model.safetensors"
HISTORY = "history.jsonl"
# folder of a run that has not ended
UNFINISHED = "unfinished"
