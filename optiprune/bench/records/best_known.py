"""Best known answers: the least energy and the highest bound of all runs, with who gave them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from optiprune.bench.errors import BenchError
from optiprune.bench.instances.instance import BestKnown, Instance, verify
from optiprune.problems.files.atomic import replacing

__all__ = ["FILE", "read_best_known", "update_best", "with_best_known", "write_best_known"]

FILE = "best-known.json"


def update_best(
    best: Mapping[str, BestKnown], records: Iterable[Mapping[str, Any]]
) -> tuple[dict[str, BestKnown], list[str]]:
    """``(best known by content hash, faults)`` after more solves.

    A bound counts only if no answer lies below it; each one that does not is a fault, told in
    words with the solver's name.
    """
    out = dict(best)
    solves = [r for r in records if r["type"] == "solve"]
    for r in solves:
        energy, old = r.get("energy"), out.get(r["sha256"])
        if energy is None:
            continue
        if old is None or energy < old.energy - 1e-9 * abs(old.energy):
            before = (None, None) if old is None else (old.bound, old.proven_by)
            out[r["sha256"]] = BestKnown(energy, r["solver"], r["x"], *before)
        elif old.x is None and energy <= old.energy + 1e-9 * abs(old.energy):
            # a published value of which there is an assignment now
            out[r["sha256"]] = replace(old, x=r["x"])
    faults = []
    for r in solves:
        bound, known = r.get("bound"), out.get(r["sha256"])
        if bound is None or known is None:
            continue
        if bound > known.energy + 1e-6 * (1 + abs(known.energy)):
            faults.append(
                f"{r['solver']} claims a bound of {bound!r} for {r['instance']}, above the energy "
                f"{known.energy!r} found by {known.found_by}"
            )
        elif known.bound is None or bound > known.bound + 1e-9 * abs(known.bound):
            bound = min(bound, known.energy)
            out[r["sha256"]] = replace(known, bound=bound, proven_by=r["solver"])
    for sha, known in out.items():
        if known.bound is not None and known.bound > known.energy:
            out[sha] = replace(known, bound=known.energy)
    return out, sorted(set(faults))


def with_best_known(instances: Iterable[Instance], best: Mapping[str, BestKnown]) -> list[Instance]:
    """Instances with the better of their own and the given best known answer.

    A given answer is held against its problem; raises `BenchError` if it is not what it claims.
    """
    out = []
    for i in instances:
        given = best.get(i.sha256)
        if given is not None and (i.best is None or _better(given, i.best)):
            verify(i.name, i.load(), given)
            i = i.with_best(given)
        out.append(i)
    return out


def _better(a: BestKnown, b: BestKnown) -> bool:
    if a.energy != b.energy:
        return a.energy < b.energy
    return b.bound is None or (a.bound is not None and a.bound > b.bound)


def write_best_known(path: Path, best: Mapping[str, BestKnown], names: Mapping[str, str]) -> None:
    """Write by content hash, with the instances' names; whole or not at all."""
    table = {
        sha: {"instance": names.get(sha), **best[sha].as_dict()}
        for sha in sorted(best, key=lambda s: (names.get(s) or "", s))
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def read_best_known(path: Path) -> dict[str, BestKnown]:
    """What `write_best_known` wrote. Raises `BenchError` for anything else."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return {
            sha: BestKnown(**{k: v for k, v in entry.items() if k != "instance"})
            for sha, entry in table.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as e:
        raise BenchError(f"{path} cannot be read as best known answers: {e}") from None
