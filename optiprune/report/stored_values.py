"""Dataclasses of the engine out of the JSON that they were written as."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from .errors import ReportError

__all__ = ["read_dataclass"]

T = TypeVar("T")


def read_dataclass(kind: type[T], table: Any, where: str) -> T:
    """An instance of ``kind`` from what `json.loads` gave.

    JSON has no NaN: null where a number must be is one. Keys of a later version are ignored.
    Raises `ReportError`, which begins with ``where``, for what does not fit.
    """
    try:
        return TypeAdapter(kind).validate_python(_with_nan(kind, table))
    except ValidationError as e:
        first = e.errors()[0]
        place = ".".join(str(p) for p in first["loc"])
        raise ReportError(f"{where}: {place}: {first['msg'].lower()}") from None


def _with_nan(kind: Any, value: Any) -> Any:
    if kind is float:
        return math.nan if value is None else value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type) and isinstance(value, Mapping):
        hints = get_type_hints(kind)
        return {k: _with_nan(hints.get(k, Any), v) for k, v in value.items()}
    if get_origin(kind) is tuple and isinstance(value, list):
        inner = get_args(kind)
        if len(inner) == 2 and inner[1] is Ellipsis:
            return [_with_nan(inner[0], v) for v in value]
    if get_origin(kind) is types.UnionType and value is not None:
        for part in get_args(kind):
            if dataclasses.is_dataclass(part):
                return _with_nan(part, value)
    return value
