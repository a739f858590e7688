"""Fashion-MNIST (Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747) from Debian's package.

    apt-get update && apt-get install dataset-fashion-mnist

puts four gzipped IDX files under /usr/share/datasets/fashion-mnist. Files from elsewhere are read
from the directory that the environment variable OPTIPRUNE_FASHION_MNIST names.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["FILES", "DatasetNotFoundError", "directory", "read_idx", "read_split"]

# bytes unpacked; the largest of the four files has 47 million
_LARGEST = 1 << 28
DEFAULT_DIRECTORY = Path("/usr/share/datasets/fashion-mnist")
FILES = {"train": "train", "test": "t10k"}


class DatasetNotFoundError(FileNotFoundError):
    """The dataset is not on this machine; the message says how to get it."""


def directory() -> Path:
    """Where the four files lie. Raises `DatasetNotFoundError` if one of them is missing."""
    override = os.environ.get("OPTIPRUNE_FASHION_MNIST")
    path = Path(override) if override else DEFAULT_DIRECTORY
    for prefix in FILES.values():
        for kind in ("images-idx3", "labels-idx1"):
            name = f"{prefix}-{kind}-ubyte.gz"
            if not (path / name).is_file():
                raise DatasetNotFoundError(
                    f"Fashion-MNIST: {path / name} does not exist. On Debian or Ubuntu run "
                    "`apt-get update && apt-get install dataset-fashion-mnist`; elsewhere download "
                    "the four gz files and set OPTIPRUNE_FASHION_MNIST to their directory"
                )
    return path


def read_split(split: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Images (n, 28, 28) and labels (n,) of "train" or "test".

    Raises
    ------
    DatasetNotFoundError
        The files are missing; the message says how to get them.
    ValueError
        An unknown split, or files that are damaged.
    """
    if split not in FILES:
        raise ValueError(f"split must be one of {', '.join(FILES)}; got {split!r}")
    root = directory()
    images = read_idx(root / f"{FILES[split]}-images-idx3-ubyte.gz")
    labels = read_idx(root / f"{FILES[split]}-labels-idx1-ubyte.gz")
    if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
        raise ValueError(f"{root}: images {images.shape} and labels {labels.shape} do not match")
    return images, labels


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """One gzipped IDX file of unsigned bytes, in its own shape.

    Raises ValueError if the file is not gzip, is truncated, or is not IDX of unsigned bytes.
    """
    try:
        with gzip.open(path, "rb") as f:
            raw = f.read(_LARGEST + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise ValueError(f"{path} is not a complete gzip file: {e}") from e
    if len(raw) < 4:
        raise ValueError(f"{path} is not an IDX file: it holds {len(raw)} bytes")
    if len(raw) > _LARGEST:
        raise ValueError(f"{path} holds more than {_LARGEST} bytes: no file of this data set does")
    zero, dtype, ndim = struct.unpack(">HBB", raw[:4])
    if zero != 0 or dtype != 0x08:
        raise ValueError(f"{path} is not an IDX file of unsigned bytes (magic {raw[:4].hex()})")
    if ndim > 4:
        raise ValueError(f"{path} has {ndim} dimensions: no file of this data set has more than 3")
    start = 4 + 4 * ndim
    if len(raw) < start:
        raise ValueError(f"{path} is truncated within its header")
    shape = struct.unpack(f">{ndim}I", raw[4:start])
    size = math.prod(shape)
    if len(raw) != start + size:
        raise ValueError(f"{path} should hold {start + size} bytes for {shape}, holds {len(raw)}")
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape)
