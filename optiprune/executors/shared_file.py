"""A value in a file, its arrays behind one another, to be mapped into memory by other processes.

Read by processes of the same run alone, from a folder that no other user can write to.
"""

from __future__ import annotations

import mmap
import pickle
from pathlib import Path
from typing import Any

import cloudpickle

__all__ = ["read_shared", "write_shared"]

# as torch and NumPy's libraries like their arrays
_ALIGNED = 64


def write_shared(path: Path, value: object) -> None:
    """Pickle the value; arrays are written as they are, not into the pickle."""
    buffers: list[pickle.PickleBuffer] = []
    text = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    raw = [b.raw() for b in buffers]
    head = pickle.dumps((len(text), [b.nbytes for b in raw]))
    with open(path, "wb") as file:
        file.write(len(head).to_bytes(8, "little"))
        for part in (head, text, *raw):
            file.write(bytes(-file.tell() % _ALIGNED))
            file.write(part)


def read_shared(path: Path) -> Any:
    """The value; its arrays are read-only views of the file."""
    with open(path, "rb") as file:
        whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    at = 8

    def take(size: int) -> memoryview:
        nonlocal at
        at += -at % _ALIGNED
        part = whole[at : at + size]
        at += size
        return part

    length, sizes = pickle.loads(take(int.from_bytes(whole[:8], "little")))
    text = take(length)
    return pickle.loads(text, buffers=[take(size) for size in sizes])
