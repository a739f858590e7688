"""A folder of problem files as a suite, with or without the manifest of an export."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from optiprune.bench.errors import BenchError
from optiprune.durable import file_sha256
from optiprune.problems import Problem, ProblemError, read_problem
from optiprune.problems.files import FORMATS as FILE_FORMATS

from .instance import BestKnown, Instance

__all__ = ["MANIFEST", "folder_suite", "read_manifest"]

MANIFEST = "manifest.json"
_FORMAT = "optiprune-suite"
VERSION = 1
# what comes of reading another JSON file, or none, as a manifest
_NO_MANIFEST = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    AssertionError,
    RecursionError,
)
# names in a message
_SHOWN = 20
_SUFFIXES = tuple(s for suffixes in FILE_FORMATS.values() for s in suffixes)


def folder_suite(
    folder: Path, note: Callable[[str], None] = print, match: str = "*"
) -> list[Instance]:
    """The instances of a folder, by its manifest if it has one, else every problem file in it.

    With a manifest, files are held against their hashes, and the best known answers against their
    problems. Of an instance in several formats the exact one is read (npz, else the first).

    Parameters
    ----------
    note : called with what is left out: files that hold no problem, and second copies of one
    match : shell pattern of the names; other files are not read

    Raises
    ------
    BenchError
        For a folder without problems that match, a damaged manifest, a listed file that is missing
        or has changed.
    FileFormatError
        For a listed file that cannot be read.
    """
    if (folder / MANIFEST).exists():
        entries = read_manifest(folder)["instances"]
        names = [str(_name(e)) for e in entries]
        found = [_listed(folder, entry) for entry in entries if _matches(entry, match)]
    else:
        names, found = _unlisted(folder, note, match)
    if not found:
        shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        raise BenchError(
            f"{folder} holds no problem that matches {match!r} and can be read; it has: {shown}"
        )
    first: dict[str, Instance] = {}
    for i in found:
        if i.sha256 in first:
            note(f"{i.name}: left out: the same problem as {first[i.sha256].name}")
        first.setdefault(i.sha256, i)
    return list(first.values())


def _unlisted(
    folder: Path, note: Callable[[str], None], match: str
) -> tuple[list[str], list[Instance]]:
    """``(names of all problem files, instances of those that match and can be read)``."""
    # a name with a dot in front is what a writer that was killed left of a file
    paths = sorted(
        p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES and p.name[0] != "."
    )
    if not paths:
        raise BenchError(f"{folder} holds no problem files ({' '.join(_SUFFIXES)})")
    stems = [p.stem for p in paths]
    # p.npz beside p.lp: the whole name tells them apart
    names = [p.stem if stems.count(p.stem) == 1 else p.name for p in paths]
    family, found = folder.resolve().name, []
    for name, path in zip(names, paths, strict=True):
        if fnmatch.fnmatchcase(name, match):
            source = partial(_read, path.resolve())
            try:
                found.append(Instance.of(name, source(), source, family=family, recipe="file"))
            except (ProblemError, OSError) as e:
                note(f"{path.name}: left out: {e}")
    return names, found


def _name(entry: Any) -> Any:
    return entry.get("name") if isinstance(entry, dict) else None


def _matches(entry: Any, match: str) -> bool:
    """Whether an entry is asked for; one without a name is, so that it is refused."""
    name = _name(entry)
    return not isinstance(name, str) or fnmatch.fnmatchcase(name, match)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder. Raises `BenchError` if it is none of ours."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != _FORMAT or manifest["version"] != VERSION:
            raise BenchError(
                f"{path} is not a manifest of version {VERSION}: "
                f"{manifest.get('format')!r}, {manifest.get('version')!r}"
            )
        assert isinstance(manifest["instances"], list)
    except BenchError:
        raise
    except _NO_MANIFEST as e:
        raise BenchError(f"{path} cannot be read as a manifest: {type(e).__name__}: {e}") from None
    return dict(manifest)


def _listed(folder: Path, entry: dict[str, Any]) -> Instance:
    try:
        name, files = entry["name"], entry["files"]
        fields = {key: entry[key] for key in ("family", "recipe", "seed", "kind", "n", "k")}
        best = None if entry.get("best_known") is None else BestKnown(**entry["best_known"])
        usable = [f for f in files if f["form"] == "exact" and f["format"] in FILE_FORMATS]
        usable.sort(key=lambda f: f["format"] != "npz")
        chosen, sha256 = usable[0], entry["sha256"]
        path = folder / chosen["file"]
        wanted = chosen["sha256"]
    except (KeyError, TypeError, IndexError) as e:
        raise BenchError(
            f"{folder / MANIFEST}: an instance lacks {e}; write the folder again"
        ) from None
    try:
        there = path.is_file()
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError):  # no name that a file can have
        there = inside = False
    if there and not inside:
        raise BenchError(f"{str(path)[:300]} is outside {folder}; the manifest lists it")
    if not there:
        raise BenchError(f"{str(path)[:300]} is missing; the manifest lists it")
    found = file_sha256(path)
    if found != wanted:
        raise BenchError(f"{path} has changed since the manifest was written ({found[:12]}...)")
    source = partial(_read, path.resolve())
    if chosen["format"] in ("lp", "mps"):  # 15 digits: equal within rounding, not by hash
        told = {k: fields[k] for k in ("family", "recipe", "seed")}
        return Instance.of(name, source(), source, **told, best=best)
    return Instance(name=name, sha256=sha256, source=source, best=best, **fields)


def _read(path: Path) -> Problem:
    return read_problem(path)
