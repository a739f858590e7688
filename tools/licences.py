"""Licences of what optiprune needs, against a list of those that a project under MIT may need.

    python -m tools.licences [EXTRA ...]

Looks at what is installed here: the core requirements and what they need in turn, and those of the
extras that are named. The exit status is 1 for a licence that is not on the list, or for none. A
requirement of an extra that is not installed is told and not judged.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from packaging.requirements import Requirement

__all__ = ["ALLOWED", "Judged", "judge", "judged"]

# Permissive, and the weak copyleft that asks nothing of those who only import (MPL, LGPL)
ALLOWED = {
    *("0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0"),
    *("HPND", "ISC", "LLVM-exception", "MIT", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Python-2.0"),
    *("Unlicense", "Zlib", "LGPL-3.0-or-later"),
}
# Words of classifiers and of the old free-text field
_NAMES = {
    r"Apache (Software )?License|Apache[ -]2": "Apache-2.0",
    r"BSD": "BSD",
    r"ISC": "ISC",
    r"MIT": "MIT",
    r"Mozilla Public License 2": "MPL-2.0",
    r"Python Software Foundation|^PSF": "PSF-2.0",
}


@dataclass(frozen=True, slots=True)
class Judged:
    """A package and what it says of its licence; ``fits`` is whether that is on the list."""

    name: str
    version: str
    licence: str
    fits: bool


def judge(expression: str) -> bool:
    """Whether an SPDX expression can be met: of OR one side, of AND and WITH both."""
    text = expression.replace("(", " ( ").replace(")", " ) ").split()
    try:
        fits, rest = _any(text)
    except IndexError:
        return False
    return fits and not rest


def _any(words: Sequence[str]) -> tuple[bool, Sequence[str]]:
    fits, words = _all(words)
    while words and words[0] == "OR":
        other, words = _all(words[1:])
        fits = fits or other
    return fits, words


def _all(words: Sequence[str]) -> tuple[bool, Sequence[str]]:
    fits, words = _one(words)
    while words and words[0] in ("AND", "WITH"):
        other, words = _one(words[1:])
        fits = fits and other
    return fits, words


def _one(words: Sequence[str]) -> tuple[bool, Sequence[str]]:
    if words[0] == "(":
        fits, words = _any(words[1:])
        return (fits, words[1:]) if words[0] == ")" else (False, words[1:])
    return words[0] in ALLOWED, words[1:]


def judged(extras: Sequence[str] = (), root: str = "optiprune") -> list[Judged]:
    """Everything that is needed, by name; see the head of this file."""
    found: dict[str, Judged] = {}
    todo = [(root, ("", *extras))]
    while todo:
        name, wanted = todo.pop()
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            print(f"not installed, not judged: {name}", file=sys.stderr)
            continue
        key = re.sub(r"[-_.]+", "-", package.metadata["Name"]).lower()
        if key in found:
            continue
        licence = licence_of(package.metadata)
        found[key] = Judged(key, package.version, licence, judge(licence))
        todo += [*_needs(package, wanted)]
    return sorted(found.values(), key=lambda p: p.name)


def _needs(
    package: importlib.metadata.Distribution, extras: Sequence[str]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    for text in package.requires or []:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": e}) for e in extras):
            yield requirement.name, ("", *requirement.extras)


def licence_of(metadata: importlib.metadata.PackageMetadata) -> str:
    """As an SPDX expression where the package gives one, else as near as its words allow."""
    expression = metadata.get("License-Expression")
    if expression:
        return str(expression)
    classifiers = [
        c.rpartition("::")[2].strip()
        for c in metadata.get_all("Classifier") or []
        if c.startswith("License ::")
    ]
    lines = str(metadata.get("License") or "").strip().splitlines() or [""]
    for text in (*classifiers, lines[0]):
        for pattern, name in _NAMES.items():
            if re.search(pattern, text) and "GPL" not in text:
                return name
    return " / ".join([*classifiers, lines[0]]).strip(" /") or "none given"


def main() -> int:
    found = judged(sys.argv[1:])
    for package in found:
        mark = " " if package.fits else "!"
        print(f"{mark} {package.name:<24}{package.version:<16}{package.licence}")
    wrong = [p.name for p in found if not p.fits]
    print(f"{len(found)} packages, {len(wrong)} with a licence that is not on the list")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
