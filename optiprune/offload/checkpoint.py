"""The tensors of a model directory, read one at a time: safetensors, whole or in shards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .errors import ModelDirectoryError

__all__ = ["INDEX", "SINGLE", "Checkpoint", "StoredTensor"]

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_OTHERS = ("*.bin", "*.pt", "*.pth", "*.gguf", "*.h5", "*.msgpack")
_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies, and what it is; ``dtype`` is None for a type that torch has not."""

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype | None
    bytes: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Names, shapes and types of all tensors; their contents stay on the disk until they are read.

    Attributes
    ----------
    tensors : by name, in the order of the files
    """

    tensors: Mapping[str, StoredTensor]

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """Read the headers of ``model.safetensors``, or of the shards that its index names.

        Raises
        ------
        ModelDirectoryError
            There is no such file, or one is damaged, missing, or outside of the folder.
        """
        index = folder / INDEX
        if index.is_file():
            names = _shards(index)
            wanted: list[tuple[Path, list[str] | None]] = [
                (folder / file, list(of)) for file, of in names.items()
            ]
        elif (folder / SINGLE).is_file():
            wanted = [(folder / SINGLE, None)]
        else:
            other = sorted(p.name for pattern in _OTHERS for p in folder.glob(pattern))
            found = f"; there is {', '.join(other[:4])}" if other else ""
            raise ModelDirectoryError(
                f"{folder} holds no {SINGLE} and no {INDEX}{found}. Pickled weights are never "
                "loaded; save the model again with save_pretrained(..., safe_serialization=True)"
            )
        tensors: dict[str, StoredTensor] = {}
        for file, of in wanted:
            inside = _header(file)
            missing = [n for n in of or () if n not in inside]
            if missing:
                raise ModelDirectoryError(f"{file} lacks {missing[0]!r}, which {INDEX} says it has")
            tensors |= {n: inside[n] for n in (inside if of is None else of)}
        return cls(tensors)

    def read(
        self, name: str, index: int | None = None, rows: tuple[int, int] | None = None
    ) -> Tensor:
        """One tensor, or the part that an index and a span of rows leave, in memory of its own.

        Raises
        ------
        ModelDirectoryError
            Its file is gone or damaged.
        """
        stored = self.tensors[name]
        try:
            with safe_open(stored.file, "pt") as f:
                if index is None:
                    part = f.get_tensor(name) if rows is None else f.get_slice(name)[slice(*rows)]
                else:
                    first, last = (0, self.tensors[name].shape[1]) if rows is None else rows
                    part = f.get_slice(name)[index : index + 1, first:last][0]
                return part.clone()
        except (OSError, SafetensorError) as e:
            raise ModelDirectoryError(f"{stored.file}: {name!r} cannot be read: {e}") from e


def _shards(index: Path) -> dict[str, list[str]]:
    """File name -> names of its tensors."""
    try:
        table = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        items = list(table.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise ModelDirectoryError(f"{index} is no index of shards: {type(e).__name__}: {e}") from e
    files: dict[str, list[str]] = {}
    for name, file in items:
        if (
            not isinstance(file, str)
            or Path(file).name != file
            or not file.endswith(".safetensors")
        ):
            raise ModelDirectoryError(
                f"{index} names {file!r}; shards are plain names of safetensors files beside it"
            )
        files.setdefault(file, []).append(name)
    if not files:
        raise ModelDirectoryError(f"{index} names no tensor")
    return files


def _header(file: Path) -> dict[str, StoredTensor]:
    found = {}
    try:
        with safe_open(file, "pt") as f:
            for name in f.keys():  # noqa: SIM118
                piece = f.get_slice(name)
                shape, dtype = tuple(piece.get_shape()), _TYPES.get(piece.get_dtype())
                size = 0 if dtype is None else torch.empty((), dtype=dtype).element_size()
                for s in shape:
                    size *= s
                found[name] = StoredTensor(file, shape, dtype, size)
    except (OSError, SafetensorError) as e:
        raise ModelDirectoryError(f"{file} is missing or damaged: {e}") from e
    return found
