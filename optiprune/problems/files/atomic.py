"""Write a file whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["replacing"]


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], suffix: str | None = None) -> Iterator[Path]:
    """A temporary path beside ``path``, moved over it on success and removed on any error.

    The temporary name ends in ``suffix`` (by default that of ``path``), for writers that look at
    it. The file gets the permissions that a plain `open` would give it.
    """
    target = Path(path)
    end = target.suffix if suffix is None else suffix
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=end, dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~mask)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
