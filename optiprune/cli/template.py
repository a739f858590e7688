"""A complete TOML file: every option, its meaning and its default, made from the config models."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping

from pydantic import BaseModel

from optiprune.config import explain

__all__ = ["template"]

WIDTH = 100


def template(model: type[BaseModel], required: Mapping[str, str]) -> str:
    """The text of a TOML file that validates against ``model``.

    Options without a value by default are commented out.

    Parameters
    ----------
    required : TOML text for each option that has no default, by dotted key
    """
    top: list[str] = []
    sections: dict[str, list[str]] = {}
    for key, kind, default, meaning in explain(model):
        section, dot, name = key.rpartition(".")
        text = required[key] if default == "required" else default
        lines = list(_comment(meaning, kind))
        if not dot and text.startswith("{"):
            # a table of its own reads better than braces, and may not come before plain keys
            sections[key] = [*lines, *_table(text)]
        elif text == "(none)":
            (sections.setdefault(section, []) if dot else top).extend([*lines, f"# {name} ="])
        else:
            (sections.setdefault(section, []) if dot else top).extend([*lines, f"{name} = {text}"])
    blocks = ["\n".join(top)]
    for name, body in sections.items():
        about = _about(model, name)
        head = [f"# {about}"] if about else []
        blocks.append("\n".join([*head, f"[{name}]", *body]))
    return "\n\n".join(blocks) + "\n"


def _about(model: type[BaseModel], section: str) -> str:
    inner = model.model_fields[section].annotation
    if isinstance(inner, type) and issubclass(inner, BaseModel) and inner.__doc__:
        return inner.__doc__.strip().splitlines()[0]
    return ""


def _comment(meaning: str, kind: str) -> Iterator[str]:
    text = f"{meaning} ({kind})"
    for line in textwrap.wrap(text, WIDTH - 2, break_long_words=False, break_on_hyphens=False):
        yield f"# {line}"


def _table(text: str) -> list[str]:
    """The lines of a flat inline table: ``{a = 1, b = 2}`` -> ``["a = 1", "b = 2"]``."""
    inside = text[1:-1].strip()
    return [part.strip() for part in inside.split(", ")] if inside else []
