"""What blocks are called with, held in memory or on a disk between two blocks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from optiprune.curvature.chain import Call

__all__ = ["DiskKeep"]


@dataclass(frozen=True, slots=True, eq=False)
class DiskKeep:
    """Keeps the tensor of each call in a file of its own, and the rest, which is small, in memory.

    Attributes
    ----------
    folder : of the files; a file is deleted when nothing holds its call any more
    """

    folder: Path

    def __call__(self, calls: Iterable[Call]) -> Sequence[Call]:
        return _DiskCalls([self._kept(call) for call in calls])

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


@dataclass(frozen=True, slots=True, eq=False)
class _DiskCalls(Sequence[Call]):
    filed: list[_Filed] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.filed)

    @overload
    def __getitem__(self, at: int) -> Call: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Call]: ...
    def __getitem__(self, at: int | slice) -> Call | Sequence[Call]:
        if isinstance(at, slice):
            return _DiskCalls(self.filed[at])
        return self.filed[at].call()

    def __iter__(self) -> Iterator[Call]:
        return (filed.call() for filed in self.filed)
