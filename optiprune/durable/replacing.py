"""Write a file whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["remove_leftovers", "replacing", "sync_folder"]

_MARK = ".part-"


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], suffix: str | None = None) -> Iterator[Path]:
    """A temporary path beside ``path``, moved over it on success and removed on any error.

    What was written is on disk before it is moved, and the move is before this returns: neither a
    crash nor a power cut leaves half a file under its name. An error of the system that a library
    wrapped (safetensors on a full disk) is raised as the OSError that it is. The temporary name
    ends in ``suffix`` (by default that of ``path``), for writers that look at it. The file gets the
    permissions that a plain `open` would give it.
    """
    target = Path(path)
    end = target.suffix if suffix is None else suffix
    handle, name = tempfile.mkstemp(prefix=f".{target.name}{_MARK}", suffix=end, dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~mask)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
        sync_folder(target.parent)
    except Exception as e:
        number = re.search(r"os error (\d+)", str(e))  # as libraries written in Rust report it
        if number is None or isinstance(e, OSError):
            raise
        code = int(number[1])
        raise OSError(code, os.strerror(code), str(target)) from e
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of processes that were killed; no other may be writing there."""
    for path in folder.glob(f".*{_MARK}*"):
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on disk, where the system has a call for that."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.ENOTSUP):  # not every file system can
            raise
    finally:
        os.close(handle)
