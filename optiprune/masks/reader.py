"""The masks of a file one at a time, for models whose masks and values together fill the memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from .errors import MaskFileError
from .file import header, read_mask

__all__ = ["MaskReader"]


class MaskReader:
    """An open mask file; see `MaskReader.open`."""

    def __init__(self, path: Path, file: Any, records: list[dict[str, Any]]) -> None:
        self._path = path
        self._file = file
        self._records = {r["name"]: r for r in records}
        self._keys = set(file.keys())

    @classmethod
    @contextmanager
    def open(cls, path: str | os.PathLike[str]) -> Iterator[MaskReader]:
        """The reader of a file, until the end of the ``with``.

        Raises
        ------
        FileNotFoundError
            No such file.
        MaskFileError
            Not a mask file, of a newer format, truncated or damaged.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no mask file {path}")
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                yield cls(path, file, header(path, file.metadata() or {}))
        except SafetensorError as e:
            raise MaskFileError(f"{path} is damaged or is not a safetensors file: {e}") from e

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parameters, in the order of the file."""
        return tuple(self._records)

    def mask(self, name: str) -> Tensor:
        """One mask, bool, in its parameter's shape.

        Raises KeyError for a name that is not there, `MaskFileError` for a mask that is damaged.
        """
        key = f"mask:{name}"
        packed = self._file.get_tensor(key) if key in self._keys else None
        return read_mask(self._path, self._records[name], packed)
