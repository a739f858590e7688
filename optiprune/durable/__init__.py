"""Files that a crash, a full disk or a power cut leaves whole: standard library alone."""

from .digest import file_sha256
from .journal import Entry, Journal, JournalError
from .journal_view import JournalView
from .lock import LockedError, locked
from .replacing import replacing, sync_folder

__all__ = [
    "Entry",
    "Journal",
    "JournalError",
    "JournalView",
    "LockedError",
    "file_sha256",
    "locked",
    "replacing",
    "sync_folder",
]
