"""Read a table of options and check it: one message that names every key that is wrong."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["ConfigError", "read_toml", "validate"]


class ConfigError(ValueError):
    """A config that cannot be used; the message names the key and what it may be."""


def validate(model: type[Any], table: Mapping[str, Any]) -> Any:
    """Validate ``table`` against a config model. Raises `ConfigError` with every complaint."""
    try:
        return model.model_validate(table)
    except ValidationError as e:
        raise ConfigError("\n".join(_complaints(model, e))) from None


def _complaints(model: type[BaseModel], error: ValidationError) -> Iterator[str]:
    for item in error.errors():
        path = [str(p) for p in item["loc"]]
        where = ".".join(path)
        if item["type"] == "extra_forbidden":
            valid = sorted(_fields_at(model, path[:-1]))
            close = difflib.get_close_matches(path[-1], valid, 1, cutoff=0.5)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            yield f"unknown key '{where}'{hint} Valid here: {', '.join(valid)}"
        else:
            shown = item.get("input")
            got = "" if isinstance(shown, dict) else f", got {shown!r}"
            message = item["msg"].removeprefix("Value error, ")
            yield f"{where}: {message[:1].lower()}{message[1:]}{got}"


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        inner = model.model_fields[part].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)


def read_toml(path: str | Path) -> dict[str, Any]:
    """Parse a TOML file. Raises `ConfigError` with the file's name (and line, for bad syntax)."""
    try:
        with open(path, "rb") as f:
            return tomllib.load(f)
    except OSError as e:
        raise ConfigError(f"cannot read {path}: {e.strerror}") from None
    except (ValueError, RecursionError) as e:  # also numbers of thousands of digits
        raise ConfigError(f"{path} is not valid TOML: {e}") from None
