"""Best known answers: the least energy and the highest bound of all runs, with who gave them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from optiprune.bench.errors import BenchError
from optiprune.bench.instances.instance import BestKnown, Instance, verify
from optiprune.durable import replacing

__all__ = [
    "FILE",
    "merged",
    "read_best_known",
    "refuted",
    "update_best",
    "with_best_known",
    "write_best_known",
]

FILE = "best-known.json"


def update_best(
    best: Mapping[str, BestKnown], records: Iterable[Mapping[str, Any]]
) -> tuple[dict[str, BestKnown], list[str]]:
    """``(best known by content hash, faults)`` after more solves.

    A bound counts only if no answer lies below it, whether it came with these solves or before
    them; each claim that does not hold is a fault, told in words with the solver's name.
    """
    solves = [r for r in records if r["type"] == "solve"]
    names = {r["sha256"]: str(r["instance"]) for r in solves}
    out = dict(best)
    for r in solves:
        _update_energy(out, r)
    faults = []
    for sha, known in out.items():
        held = _without_refuted(known)
        if held is not known:
            assert known.bound is not None
            faults.append(_above(str(known.proven_by), known.bound, names.get(sha, sha), known))
            out[sha] = held
    for r in solves:
        if r["sha256"] not in out:
            continue
        known = out[r["sha256"]]
        fault = refuted(r, known)
        if fault is not None:
            faults.append(fault)
            continue
        bound = _bound(r)
        if bound is not None and (known.bound is None or bound > known.bound + known.tolerance):
            bound = min(bound, known.energy)  # no further above than `refuted` allows
            out[r["sha256"]] = replace(known, bound=bound, proven_by=r["solver"])
    return out, sorted(set(faults))


def _update_energy(out: dict[str, BestKnown], r: Mapping[str, Any]) -> None:
    energy, sha = r.get("energy"), r["sha256"]
    if energy is None:
        return
    old = out.get(sha)
    if old is None:
        out[sha] = BestKnown(energy, r["solver"], r["x"], rounding=r.get("rounding"))
        return
    if old.rounding is None:
        old = out[sha] = replace(old, rounding=r.get("rounding"))
    if energy < old.energy - old.tolerance:
        out[sha] = replace(old, energy=energy, found_by=r["solver"], x=r["x"])
    elif old.x is None and energy <= old.energy + old.tolerance:
        # a published value of which there is an assignment now
        out[sha] = replace(old, x=r["x"])


def refuted(record: Mapping[str, Any], known: BestKnown) -> str | None:
    """Which claim of a solve the best known answer refutes, in words; None if it is none."""
    name, solver, status = str(record["instance"]), str(record["solver"]), record["status"]
    answer = f"the energy {known.energy!r} found by {known.found_by}"
    if status == "infeasible":
        return f"{solver} claims that {name} has no feasible answer, against {answer}"
    bound, energy = record.get("bound"), record.get("energy")
    if bound is not None and known.refutes(bound):
        return _above(solver, bound, name, known)
    if status == "optimal" and energy is not None and known.refutes(energy):
        return f"{solver} claims {energy!r} as the optimum of {name}, above {answer}"
    return None


def _above(solver: str, bound: float, name: str, known: BestKnown) -> str:
    return (
        f"{solver} claims a bound of {bound!r} for {name}, above the energy "
        f"{known.energy!r} found by {known.found_by}"
    )


def _bound(record: Mapping[str, Any]) -> float | None:
    """Whoever claims an optimum without a bound claims its energy as one."""
    bound = record.get("bound")
    optimal = bound is None and record["status"] == "optimal"
    return record.get("energy") if optimal else bound


def _without_refuted(known: BestKnown) -> BestKnown:
    if known.bound is not None and known.refutes(known.bound):
        return replace(known, bound=None, proven_by=None)
    return known


def merged(a: BestKnown, b: BestKnown) -> BestKnown:
    """The lower energy of two, and the higher of their bounds that hold.

    If none holds against that energy it is kept, for `update_best` to tell.
    """
    low, other = (a, b) if a.energy <= b.energy else (b, a)
    if low.rounding is None:
        low = replace(low, rounding=other.rounding)
    if low.x is None and other.energy <= low.energy + low.tolerance:
        low = replace(low, x=other.x)
    proofs = [(not low.refutes(k.bound), k.bound, k) for k in (low, other) if k.bound is not None]
    if not proofs:
        return low
    _, bound, proof = max(proofs, key=lambda p: p[:2])
    return replace(low, bound=bound, proven_by=proof.proven_by)


def with_best_known(instances: Iterable[Instance], best: Mapping[str, BestKnown]) -> list[Instance]:
    """Instances with the better of their own and the given best known answer.

    A given answer is held against its problem; raises `BenchError` if it is not what it claims.
    """
    out = []
    for i in instances:
        given = best.get(i.sha256)
        if given is not None:
            given = verify(i.name, i.load(), given)
            both = given if i.best is None else merged(i.best, given)
            i = i.with_best(_without_refuted(both))
        out.append(i)
    return out


def write_best_known(path: Path, best: Mapping[str, BestKnown], names: Mapping[str, str]) -> None:
    """Write by content hash, with the instances' names; whole or not at all.

    Names that are not given are those of the file that was there. Raises `BenchError` if that is
    another kind of file.
    """
    before = _read(path) if path.exists() else {}
    known = {sha: names.get(sha) or before.get(sha, (None, None))[0] for sha in best}
    table = {
        sha: {"instance": known[sha], **best[sha].as_dict()}
        for sha in sorted(best, key=lambda s: (known[s] or "", s))
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def read_best_known(path: Path) -> dict[str, BestKnown]:
    """What `write_best_known` wrote. Raises `BenchError` for anything else."""
    return {sha: best for sha, (_, best) in _read(path).items()}


def _read(path: Path) -> dict[str, tuple[str | None, BestKnown]]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return {
            sha: (
                entry.get("instance"),
                BestKnown(**{k: v for k, v in entry.items() if k != "instance"}),
            )
            for sha, entry in table.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as e:
        raise BenchError(f"{path} cannot be read as best known answers: {e}") from None
