"""Modules of the user's own, which lie in a folder and are not installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["importable"]


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let modules of a folder be imported; last on the path, they hide nothing installed."""
    entry = str(folder)
    sys.path.append(entry)
    try:
        yield
    finally:
        sys.path.reverse()
        sys.path.remove(entry)
        sys.path.reverse()
