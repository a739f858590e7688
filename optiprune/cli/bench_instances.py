"""The instances of a results folder: one suite, written once, the same whenever a run goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    from optiprune.bench.instances import Instance, Selection

__all__ = ["kept_instances", "request"]


def kept_instances(
    suite: str, selection: Selection, out: Path, note: Callable[[str], None]
) -> list[Instance]:
    """The instances of a run: a generated suite is written beside the results, so that a run that
    goes on, here or elsewhere, has the same ones to the last bit.

    Raises `InputError` where the folder holds results on another suite.
    """
    from optiprune.bench.instances import MANIFEST, SUITES, export_suite, folder_suite
    from optiprune.bench.instances import suite as make_suite
    from optiprune.bench.instances.folder import read_manifest

    kept, wanted = out / "instances", request(suite, selection)
    # other suites are files already, or the same everywhere
    generated = suite in SUITES and suite != "palubeckis"
    if generated and (kept / MANIFEST).exists():
        before = read_manifest(kept)["request"]
        if _same_form(before) != wanted:
            raise InputError(f"{out} holds results on {before}, not {wanted}; choose another --out")
        return folder_suite(kept, note)
    if generated:
        note(f"making the instances of suite {suite!r} ...")
    instances = make_suite(suite, selection, note)
    _refuse_other_suites(out, suite, instances)
    if generated:
        export_suite(instances, kept, request=wanted)
        return folder_suite(kept, note)
    return instances


def request(suite: str, selection: Selection) -> dict[str, Any]:
    """What was asked for, for a manifest: values, so that another spelling is the same."""
    sizes = None if selection.sizes is None else sorted(set(selection.sizes))
    return {"suite": suite, "sizes": sizes, "count": selection.count, "match": selection.match}


def _same_form(before: Any) -> Any:
    """Manifests of before held sizes as they were typed."""
    if not isinstance(before, Mapping) or not isinstance(before.get("sizes"), str):
        return before
    sizes = {int(part) for part in before["sizes"].split(",") if part.strip()}
    return {**before, "sizes": sorted(sizes)}


def _refuse_other_suites(out: Path, suite: str, instances: list[Instance]) -> None:
    """One table of two suites would be the mean of things that have nothing to do with each other.

    Another selection of the same files or of the literature is welcome, and known by its families;
    where the folder keeps a generated suite, only its own instances are.
    """
    from optiprune.bench.instances import MANIFEST
    from optiprune.bench.records import JOURNAL, read_journal

    if not (out / JOURNAL).exists():
        return
    solves = [r for r in read_journal(out) if r["type"] == "solve"]
    alike = {i.sha256 for i in instances} & {r["sha256"] for r in solves}
    if not (out / "instances" / MANIFEST).exists():
        alike |= {i.family for i in instances} & {r["family"] for r in solves}
    if solves and not alike:
        families = ", ".join(sorted({r["family"] for r in solves}))
        raise InputError(
            f"{out} holds results on another suite ({families}), not on {suite!r}; "
            "choose another --out"
        )
