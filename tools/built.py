"""What must be in a wheel and in a source distribution, and what must not."""

from __future__ import annotations

import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["changelog_faults", "sdist_faults", "version_of", "wheel_faults"]

_HEADING = re.compile(r"^## \[([^\]]+)\](?: - (\d{4}-\d{2}-\d{2}))?\s*$", re.MULTILINE)


def version_of(root: Path) -> str:
    """The one place that says it: ``optiprune/__init__.py``. Raises ValueError."""
    text = (root / "optiprune" / "__init__.py").read_text(encoding="utf-8")
    found = re.findall(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if len(found) != 1:
        raise ValueError(f"optiprune/__init__.py gives {len(found)} versions")
    return str(found[0])


def changelog_faults(text: str, version: str, *, release: bool) -> Iterator[str]:
    """What is wrong with the headings of a changelog.

    The newest is that of the version, with a date; before a release it may be ``[Unreleased]``.
    """
    headings = [(m[1], m[2]) for m in _HEADING.finditer(text)]
    if not headings:
        yield "CHANGELOG.md has no heading such as '## [1.2.3] - 2026-01-31'"
        return
    name, date = headings[0]
    if name == "Unreleased" and release:
        yield f"CHANGELOG.md begins with [Unreleased]; a release needs '## [{version}] - DATE'"
    elif name != "Unreleased" and name != version:
        yield f"CHANGELOG.md begins with [{name}], the version is {version}"
    for name, date in headings:
        if name != "Unreleased" and date is None:
            yield f"CHANGELOG.md: [{name}] has no date"
    names = [name for name, _ in headings]
    if len(set(names)) != len(names):
        yield "CHANGELOG.md has a heading twice"


def wheel_faults(wheel: Path, root: Path) -> Iterator[str]:
    """What a wheel lacks, or has too much of."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    packed = {n for n in names if not n.split("/")[0].endswith(".dist-info")}
    wanted = _sources(root)
    yield from (f"the wheel lacks {name}" for name in sorted(wanted - packed))
    yield from (f"the wheel should not hold {name}" for name in sorted(packed - wanted))
    if len(names) != len(set(names)):
        yield "the wheel holds a file twice"
    if not any(n.endswith(".dist-info/licenses/LICENSE") for n in names):
        yield "the wheel lacks its LICENSE"
    if not any(n.endswith(".dist-info/entry_points.txt") for n in names):
        yield "the wheel lacks its command"


def sdist_faults(sdist: Path, root: Path) -> Iterator[str]:
    """What a source distribution lacks to be built, or has too much of."""
    with tarfile.open(sdist) as archive:
        members = {m.name.partition("/")[2]: m for m in archive.getmembers() if "/" in m.name}
    wanted = _sources(root) | {"pyproject.toml", "README.md", "LICENSE"}
    yield from (f"the sdist lacks {name}" for name in sorted(wanted - set(members)))
    for name, member in sorted(members.items()):
        if name.partition("/")[0] in ("solvers", "problems"):
            yield f"the sdist holds {name}: the packages inside optiprune a second time"
        elif member.issym() or member.islnk():
            yield f"the sdist holds a link, {name}"


def _sources(root: Path) -> set[str]:
    """Modules, the mark of typed packages, and the templates of reports."""
    package = root / "optiprune"
    templates = (package / "report" / "templates").glob("*")
    files = [*package.rglob("*.py"), package / "py.typed", *templates]
    return {p.relative_to(root).as_posix() for p in files}
