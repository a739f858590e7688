"""Steps of a run on disk, each whole or not there at all.

A folder holds ``journal.jsonl``, a line for each step, and ``steps/``, the contents of those that
have a file. A step is written in the order contents, line, each of them on disk before
the next: whatever happens in between, the steps before it are there and it is not. Every line
carries the SHA-256 of itself and of its contents, so that a change of either is seen and named.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .digest import file_sha256
from .replacing import remove_leftovers, replacing, sync_folder

__all__ = ["JOURNAL", "Entry", "Journal", "JournalError", "entry_of", "file_of"]

JOURNAL, _FOLDER = "journal.jsonl", "steps"
# lines of a journal; numbers stand in names of files
_MOST = 10**9
_REMEDY = "to do it and what came after it again, resume with --repair"


class JournalError(ValueError):
    """A journal or the contents of a step that are damaged; the message names the file."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One step.

    Attributes
    ----------
    number : of its line, from 0
    key : by which it is found
    digest : SHA-256 of its contents
    content : what stands in the line; None if it has a file
    """

    number: int
    key: str
    digest: str
    content: bytes | None


class Journal:
    """The steps in a folder, which is made if it is missing; see `locked` for one writer at a time.

    A last line that is not whole is that of a step that was being written: it is taken away.

    Parameters
    ----------
    repair : take the first step that is damaged, and all that were written after it, as missing:
        they may follow from it

    Raises
    ------
    JournalError
        A line is damaged, or what lies there leads out of the folder.
    """

    def __init__(self, folder: Path, *, repair: bool = False) -> None:
        self._folder = folder
        self._path = folder / JOURNAL
        self._entries: dict[str, Entry] = {}
        self._lines = 0
        folder.mkdir(parents=True, exist_ok=True)
        for path in (self._path, folder / _FOLDER):
            if path.is_symlink():
                raise JournalError(
                    f"{path} is a link: steps are written, and removed, in the folder itself alone"
                )
        remove_leftovers(folder / _FOLDER)
        if self._path.exists():
            self._read(repair)
        self._remove_orphans()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Of every key the last one, in the order in which they were written."""
        return tuple(self._entries.values())

    @staticmethod
    def remove(folder: Path) -> None:
        """Take all steps in a folder away, whatever their state."""
        (folder / JOURNAL).unlink(missing_ok=True)
        shutil.rmtree(folder / _FOLDER, ignore_errors=True)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def get(self, key: str) -> bytes | Path | None:
        """Contents of a step, or the file that holds them; None for one that is not there.

        Raises
        ------
        JournalError
            They are missing or damaged.
        """
        entry = self._entries.get(key)
        if entry is None or entry.content is not None:
            return None if entry is None else entry.content
        path = file_of(self._folder, entry.number, entry.key)
        try:
            if file_sha256(path) == entry.digest:
                return path
            fault = "is damaged: its checksum is not that of"
        except FileNotFoundError:
            fault = "is missing: it holds"
        raise JournalError(f"{path} {fault} step {key[:200]!r}; {_REMEDY}")

    def put(self, key: str, content: bytes | Callable[[Path], object]) -> None:
        """Add a step, or replace the one with this key. When this returns, it is on disk.

        Parameters
        ----------
        content : bytes, which stand in the line: a few thousand; or a function that writes a file

        Raises
        ------
        OSError
            It could not be written; the steps before it stay.
        """
        number = self._lines
        if isinstance(content, bytes):
            digest = hashlib.sha256(content).hexdigest()
            entry = Entry(number, key, digest, content)
        else:
            path = file_of(self._folder, number, key)
            if not path.parent.exists():
                path.parent.mkdir()
                sync_folder(self._folder)
            with replacing(path) as part:
                content(part)
                digest = file_sha256(part)
            entry = Entry(number, key, digest, None)
        self._append(_line(entry))
        old = self._entries.pop(key, None)
        self._entries[key] = entry
        if old is not None and old.content is None:
            file_of(self._folder, old.number, old.key).unlink(missing_ok=True)

    def _append(self, line: bytes) -> None:
        new = not self._path.exists()
        start = 0 if new else self._path.stat().st_size
        try:
            with open(self._path, "ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            if self._path.exists():
                os.truncate(self._path, start)
            raise
        self._lines += 1
        if new:
            sync_folder(self._folder)

    def _read(self, repair: bool) -> None:
        *lines, rest = self._path.read_bytes().split(b"\n")
        if not rest and lines and entry_of(lines[-1]) is None:  # not all of it reached the disk
            rest = lines.pop() + b"\n"
        if rest:
            os.truncate(self._path, sum(len(x) + 1 for x in lines))
        for i, line in enumerate(lines):
            entry = entry_of(line)
            if entry is None:
                if repair:
                    break
                raise JournalError(
                    f"{self._path}, line {i + 1}, is damaged: its checksum differs; {_REMEDY}"
                )
            self._entries.pop(entry.key, None)
            self._entries[entry.key] = entry
        if repair:
            self._cut()
        # never a number that a file has
        self._lines = max([len(lines), *(e.number + 1 for e in self._entries.values())])

    def _cut(self) -> None:
        """Keep the steps before the first whose contents are damaged, and nothing else."""
        whole: dict[str, Entry] = {}
        for key, entry in self._entries.items():
            try:
                self.get(key)
            except JournalError:
                break
            whole[key] = entry
        self._entries = whole
        with replacing(self._path) as part:
            part.write_bytes(b"".join(_line(e) for e in whole.values()))

    def _remove_orphans(self) -> None:
        """Contents of steps that were being written, or replaced, when a process was killed."""
        kept = {file_of(self._folder, e.number, e.key) for e in self._entries.values()}
        for path in (self._folder / _FOLDER).glob("*.bin"):
            if path not in kept:
                path.unlink()


def _line(entry: Entry) -> bytes:
    table: dict[str, Any] = {
        "n": entry.number,
        "key": entry.key,
        "sha256": entry.digest,
    }
    if entry.content is not None:
        table["content"] = base64.b64encode(entry.content).decode()
    return (json.dumps({**table, "check": _check(table)}) + "\n").encode()


def _check(table: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


def file_of(folder: Path, number: int, key: str) -> Path:
    """Where the contents of a step are whose line does not hold them."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", key)[:80]
    return folder / _FOLDER / f"{number:06d}-{name}.bin"


def entry_of(line: bytes) -> Entry | None:
    """What the line says; None if it is not as it was written."""
    try:
        table = json.loads(line)
        check = table.pop("check")
        if check != _check(table):
            return None
        text = table.get("content")
        content = None if text is None else base64.b64decode(text, validate=True)
        number, key, digest = table["n"], table["key"], table["sha256"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    # a checksum is no signature: whoever made the line could have made it anew
    sound = type(number) is int and 0 <= number < _MOST
    sound = sound and isinstance(key, str) and isinstance(digest, str)
    if sound and content is not None:
        sound = hashlib.sha256(content).hexdigest() == digest
    return Entry(number, key, digest, content) if sound else None
