"""What blocks are called with, held in memory or on a disk between two blocks."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import overload

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from optiprune.curvature.chain import Call

__all__ = ["DiskKeep", "LazyCalls", "readdressed"]


@dataclass(frozen=True, slots=True, eq=False)
class DiskKeep:
    """Keeps the tensor of each call in a file of its own, and the rest, which is small, in memory.

    Attributes
    ----------
    folder : of the files; a file is deleted when nothing holds its call any more
    """

    folder: Path

    def __call__(self, calls: Iterable[Call]) -> Sequence[Call]:
        return LazyCalls([self._kept(call).call for call in calls])

    def _kept(self, call: Call) -> _Filed:
        with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as file:
            path = Path(file.name)
        save_file({"x": call.x.contiguous().cpu()}, path)
        return _Filed(_File(path), call.at(call.x.new_empty(0)), call.x.device)


class _File:
    """Deleted with the last that holds it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __del__(self) -> None:
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, eq=False)
class _Filed:
    file: _File
    rest: Call
    device: torch.device

    def call(self) -> Call:
        x: Tensor = load_file(self.file.path)["x"].clone()
        return self.rest.at(x.to(self.device))


class LazyCalls(Sequence[Call]):
    """Calls that are made each time they are asked for."""

    def __init__(self, make: Sequence[Callable[[], Call]]) -> None:
        self._make = make

    def __len__(self) -> int:
        return len(self._make)

    @overload
    def __getitem__(self, at: int) -> Call: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Call]: ...
    def __getitem__(self, at: int | slice) -> Call | Sequence[Call]:
        return LazyCalls(self._make[at]) if isinstance(at, slice) else self._make[at]()


def readdressed(calls: Sequence[Call], arguments: Sequence[Call]) -> Sequence[Call]:
    """The tensors of some calls, with the other arguments of others."""

    def made(at: int) -> Call:
        return arguments[at].at(calls[at].x)

    return LazyCalls([partial(made, at) for at in range(len(calls))])
