"""One writer at a time in a folder, also when the one before it was killed."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["LockedError", "locked"]

_NAME = ".lock"


class LockedError(OSError):
    """Another process writes there."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, made if it is missing; the system frees it when the process ends.

    Raises
    ------
    LockedError
        Another process holds it; the message says which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _NAME
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise LockedError(f"{folder} is in use{_owner(folder)}; wait for it, or stop it") from None
    owner = folder / f"{_NAME}.owner"
    try:
        owner.unlink(missing_ok=True)  # never written through a link
        owner.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _owner(folder: Path) -> str:
    try:
        found = json.loads((folder / f"{_NAME}.owner").read_text())
        return f" by process {found['pid']} on {found['host']}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
