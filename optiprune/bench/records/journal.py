"""The journal: one JSON object a line, on disk before the next solve begins.

A line is written by one call and synced. A run that is killed may at worst leave a last line
without its end: readers skip it, and the next run cuts it off before it writes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from optiprune.bench.errors import BenchError
from optiprune.durable import sync_folder

__all__ = ["JOURNAL", "Journal", "read_journal"]

JOURNAL = "journal.jsonl"

_NUMBER = (int, float)
_NONE = type(None)
# what every reader takes for granted of a solve
_NEEDED: dict[str, tuple[type, ...]] = {
    "instance": (str,),
    "family": (str,),
    "n": (int,),
    "sha256": (str,),
    "solver": (str,),
    "solver_key": (str,),
    "seed": (int,),
    "budget": _NUMBER,
    "mode": (str,),
    "status": (str,),
}
# what a solve that was skipped or lost does not have
_OPTIONAL: dict[str, tuple[type, ...]] = {
    "energy": (*_NUMBER, _NONE),
    "bound": (*_NUMBER, _NONE),
    "x": (str, _NONE),
    "cpu_s": (*_NUMBER, _NONE),
    "rounding": (*_NUMBER, _NONE),
    "trajectory": (list, _NONE),
}


class Journal:
    """The journal of a results folder, open for appending by this process alone.

    Parameters
    ----------
    folder : made if it is missing

    Raises
    ------
    BenchError
        Another process writes to it, or it holds lines that are no records.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / JOURNAL
        if self.path.is_symlink():
            raise BenchError(
                f"{self.path} is a link: records are written in the folder itself alone"
            )
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            _lock(self._file, self.path)
            self.records, whole = _parse(self.path, self.path.read_bytes())
            os.ftruncate(self._file, whole)
            os.fsync(self._file)
            sync_folder(folder)
        except BaseException:
            os.close(self._file)
            raise

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line; it is on disk when this returns. Raises ValueError for NaN and inf."""
        text = json.dumps(dict(record), allow_nan=False, separators=(",", ":"))
        line = text.encode() + b"\n"
        start = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, line)
            if written != len(line):
                raise OSError(f"{self.path}: only {written} of {len(line)} bytes were written")
        except BaseException:
            os.ftruncate(self._file, start)  # a full disk must not leave half a line
            raise
        os.fsync(self._file)
        self.records.append(dict(record))

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)  # gives up the lock as well
            self._file = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """All whole lines of a folder's journal. Raises `BenchError` without one, or for other text."""
    path = folder / JOURNAL
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise BenchError(
            f"{folder} holds no results of a bench; `optiprune bench solvers --out {folder}` "
            "makes some"
        ) from None
    except OSError as e:
        raise BenchError(f"{folder} holds no results of a bench: {e}") from None
    return _parse(path, raw)[0]


def _parse(path: Path, raw: bytes) -> tuple[list[dict[str, Any]], int]:
    """``(records, bytes of whole lines)``."""
    whole = raw.rfind(b"\n") + 1
    records = []
    for number, line in enumerate(raw[:whole].splitlines(), 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as e:
            raise BenchError(f"{path}:{number}: not a line of a journal: {e}") from None
        if not isinstance(record, dict) or "type" not in record:
            raise BenchError(f"{path}:{number}: not a record of a journal")
        wrong = _wrong_field(record) if record["type"] == "solve" else None
        if wrong is not None:
            raise BenchError(f"{path}:{number}: not the record of a solve: {wrong}")
        records.append(record)
    return records, whole


def _wrong_field(record: Mapping[str, Any]) -> str | None:
    """What makes a solve unreadable, in words."""
    for name, types in (_NEEDED | _OPTIONAL).items():
        if name not in record:
            if name in _NEEDED:
                return f"it lacks {name!r}"
        elif not isinstance(record[name], types):
            return f"{name!r} is {record[name]!r:.50}"
    if record.get("energy") is not None and "x" not in record:
        return "it has an energy without 'x'"
    points = record.get("trajectory") or ()
    if not all(isinstance(p, list) and len(p) == 2 for p in points):
        return "'trajectory' holds more or less than times and energies"
    if not all(isinstance(v, _NUMBER) for p in points for v in p):
        return "'trajectory' holds something else than numbers"
    return None


def _lock(file: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # no such locks on this platform
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise BenchError(f"{path} is being written by another run; choose another --out") from None
