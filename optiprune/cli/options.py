"""``--set key=value``: a solver's hyperparameters from the command line, read as TOML values."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from .errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["parse_settings"]


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """``["sweeps=200", "backend=scip"]`` -> ``{"sweeps": 200, "backend": "scip"}``.

    A value is what TOML would make of it (numbers, booleans, quoted strings, arrays); a bare word
    is a string.

    Raises
    ------
    InputError
        For a setting without ``=``, an empty key, or a key given twice.
    """
    out: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        key, value = key.strip(), value.strip()
        if not equals or not key:
            raise InputError(f"--set takes key=value, got {setting!r}")
        if key in out:
            raise InputError(f"--set gives {key!r} twice")
        out[key] = _value(value)
    return out


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
