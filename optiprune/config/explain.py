"""What can be set, as rows of a table, and what of it the chosen objective does not look at."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from .options import Config

__all__ = ["explain", "ignored_options"]


def explain(
    model: type[BaseModel] = Config, prefix: str = ""
) -> Iterator[tuple[str, str, str, str]]:
    """(key, type, default, meaning) of every option, in the order of the file."""
    for key, info, objective in _options(model, prefix):
        default = "required" if info.is_required() else _toml_value(info.default)
        meaning = info.description or ""
        if objective is not None:
            meaning += f" Only for objective '{objective}'."
        yield key, _type_name(info), default, meaning


def ignored_options(config: Config) -> list[str]:
    """Dotted keys of options that are not at their default, but that this objective ignores."""
    ignored = []
    for key, info, objective in _options(Config):
        value: Any = config
        for part in key.split("."):
            value = getattr(value, part)
        chosen = config.prune.objective
        if objective not in (None, chosen) and chosen != "auto" and value != info.default:
            ignored.append(key)
    return ignored


def _options(
    model: type[BaseModel], prefix: str = "", objective: str | None = None
) -> Iterator[tuple[str, FieldInfo, str | None]]:
    """(key, field, the objective that alone looks at it, or None) of every option."""
    for name, info in model.model_fields.items():
        extra = info.json_schema_extra
        only = str(extra["objective"]) if isinstance(extra, dict) else objective
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _options(inner, f"{prefix}{name}.", only)
        else:
            yield f"{prefix}{name}", info, only


def _toml_value(value: Any) -> str:
    if value is None:
        return "(none)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {_toml_value(v)}" for k, v in value.items()) + "}"
    return str(value)


def _bounds(metadata: str) -> str:
    """Bounds as pydantic prints them, such as "Ge(ge=0), Lt(lt=1.0)"."""
    found = dict(re.findall(r"(ge|gt|le|lt)=([-\d.e]+)", metadata))
    if set(found) == {"ge", "lt"}:
        return f"in [{float(found['ge']):g}, {float(found['lt']):g})"
    symbols = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    return ", ".join(f"{symbols[k]} {v}" for k, v in found.items())


def _type_name(info: FieldInfo) -> str:
    text = (
        str(info.annotation) if not isinstance(info.annotation, type) else info.annotation.__name__
    )
    text = text.replace("typing.", "")
    text = re.sub(
        r"Annotated\[(\w+), FieldInfo\(.*?metadata=\[(.*?)\]\)\]",
        lambda m: f"{m[1]} {_bounds(m[2])}",
        text,
    )
    text = re.sub(r"Union\[(.*), (.*?)\]$", r"\1 | \2", text)
    text = re.sub(r"Literal\[(.*?)\]", lambda m: m[1].replace(", ", " | "), text)
    bounds = [
        f"{symbol} {getattr(m, attribute)}"
        for m in info.metadata
        for attribute, symbol in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))
        if hasattr(m, attribute)
    ]
    return f"{text} {', '.join(bounds)}" if bounds else text
