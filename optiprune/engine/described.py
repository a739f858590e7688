"""A user's function as text: the same in every process, another one where it computes otherwise."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from inspect import getattr_static
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from optiprune.masks.hashing import hash_tensor

from .identity import state_hash, without_addresses

__all__ = ["described"]

# functions inside of functions, objects inside of objects
_DEPTH = 4
_PLAIN = (str, bytes, int, float, complex, bool, type(None), torch.dtype, torch.device)


def described(function: object) -> str:
    """Its name, and a hash of its code, its defaults and what it has captured; of the arguments of
    a partial, the weights of a module, the attributes of an object.

    Two of one text may compute differently all the same: what a function finds in its own module
    is not looked at.
    """
    name = getattr(function, "__qualname__", type(function).__qualname__)
    digest = hashlib.sha256()
    for part in _parts(function, _DEPTH):
        digest.update(f"{part} ".encode())
    return f"{name} {digest.hexdigest()[:16]}"


def _parts(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, _PLAIN):
        yield repr(value)
    elif isinstance(value, torch.Tensor):
        yield hash_tensor(value)
    elif isinstance(value, np.ndarray):
        yield hashlib.sha256(f"{value.dtype} {value.shape}".encode() + value.tobytes()).hexdigest()
    elif isinstance(value, (type, ModuleType)):
        yield value.__name__
    elif depth == 0:
        yield type(value).__qualname__
    elif isinstance(value, nn.Module):
        yield without_addresses(repr(value))
        yield state_hash(value)
        for module in value.modules():
            numbers = {k: v for k, v in vars(module).items() if isinstance(v, _PLAIN)}
            yield from _each((numbers, type(module).forward), depth)
    elif isinstance(value, FunctionType):
        cells = [cell for cell in value.__closure__ or () if _filled(cell)]
        captured = [cell.cell_contents for cell in cells]
        yield from _code(value.__code__)
        yield from _each((value.__defaults__, value.__kwdefaults__, captured), depth)
    elif isinstance(value, MethodType):
        yield from _each((value.__func__, value.__self__), depth)
    elif isinstance(value, partial):
        yield from _each((value.func, value.args, value.keywords), depth)
    elif isinstance(value, Mapping):
        yield from _each((x for item in value.items() for x in item), depth)
    elif isinstance(value, (list, tuple)):
        yield from _each(value, depth)
    elif isinstance(value, (set, frozenset)):  # in no order
        yield from sorted(" ".join(_parts(x, depth - 1)) for x in value)
    else:
        yield type(value).__qualname__
        yield from _each((getattr(value, "__dict__", None), _call_of(value)), depth)


def _call_of(value: object) -> FunctionType | None:
    found = getattr_static(type(value), "__call__", None)
    return found if isinstance(found, FunctionType) else None


def _each(values: Iterable[Any], depth: int) -> Iterator[str]:
    for value in values:
        yield from _parts(value, depth - 1)


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - a cell that is empty raises
    except ValueError:
        return False
    return True


def _code(code: CodeType) -> Iterator[str]:
    yield code.co_code.hex()
    yield repr(code.co_names)
    for value in code.co_consts:
        yield from _code(value) if isinstance(value, CodeType) else _parts(value, 1)
