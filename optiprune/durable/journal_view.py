"""Look at a journal without changing it, while another process may be writing there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .journal import JOURNAL, Entry, entry_of, file_of

__all__ = ["JournalView"]


@dataclass(frozen=True, slots=True)
class JournalView:
    """The steps that are whole.

    Attributes
    ----------
    folder : that `Journal` was given
    entries : of every key the last one, in the order in which they were written
    damaged : lines that are not as they were written; the last one may be under way
    """

    folder: Path
    entries: tuple[Entry, ...]
    damaged: int

    @classmethod
    def read(cls, folder: Path) -> JournalView:
        """The journal in ``folder``; empty if there is none. Raises OSError if it is unreadable."""
        path = folder / JOURNAL
        lines = path.read_bytes().splitlines() if path.exists() else []
        found = [entry_of(line) for line in lines]
        last = {e.key: e for e in found if e is not None}
        kept = sorted(last.values(), key=lambda e: e.number)
        return cls(folder, tuple(kept), sum(e is None for e in found))

    def content(self, entry: Entry) -> bytes | Path:
        """Its contents, or the file that holds them, which may be gone by now."""
        if entry.content is not None:
            return entry.content
        return file_of(self.folder, entry.number, entry.key)
