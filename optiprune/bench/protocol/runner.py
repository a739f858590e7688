"""Carry out a plan: what the journal holds is not measured again, what is measured is in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optiprune.bench.errors import BenchError
from optiprune.bench.instances import Instance
from optiprune.bench.machine import describe
from optiprune.bench.records.best_known import FILE, merged, read_best_known, write_best_known
from optiprune.bench.records.journal import Journal

from .plan import Key, Protocol, Task, plan
from .spec import SolverSpec
from .usable import usable_solvers
from .worker import InProcess, Measurer, Worker

__all__ = ["Progress", "run_bench"]

_PEERS = (
    "dwave-samplers",
    "openjij",
    "simulated-bifurcation",
    "pyscipopt",
    "gurobipy",
    "ortools",
)


@dataclass(frozen=True, slots=True)
class Progress:
    """What a run says of itself after each solve.

    Attributes
    ----------
    done, total : solves, those of earlier sessions among them
    task, record : the last one, and what the journal says of it
    """

    done: int
    total: int
    task: Task
    record: Mapping[str, Any]


def run_bench(
    instances: Sequence[Instance],
    solvers: Sequence[SolverSpec],
    protocol: Protocol,
    folder: Path,
    *,
    isolate: bool = True,
    retry_errors: bool = False,
    tell: Callable[[Progress], None] = lambda _: None,
    note: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Measure every solver on every instance, and return all records of the folder's journal.

    Parameters
    ----------
    folder : where the journal lies; a run that was ended, however, goes on where it was
    isolate : solve in a process of its own; without it a crash of a solver ends the run, and
        solvers registered at run time are known
    retry_errors : measure again what ended in an error, or was skipped
    tell, note : called after each solve, and with what is left out

    Raises
    ------
    BenchError
        If nothing can be measured, a label stands for another solver in the journal, an instance
        has changed, or the journal is in use or damaged.
    SolverError
        For options that a solver does not have; see `usable_solvers`.
    KeyboardInterrupt
        After Ctrl-C; all finished solves are in the journal.
    """
    usable = usable_solvers(solvers, note)
    with Journal(folder) as journal:
        _refuse_other_solvers(usable, journal)
        done = {_key(r) for r in journal.records if _counts(r, retry_errors)}
        tasks = _once(plan(instances, usable, protocol))
        left = [t for t in tasks if t.key not in done]
        _tell_other_labels(usable, journal, note)
        if not left:
            return journal.records
        _keep_known(folder, instances, journal)
        session = 1 + sum(r["type"] == "session" for r in journal.records)
        journal.append(_session(session, usable, protocol))
        measurer: Measurer = Worker() if isolate else InProcess()
        skipped: dict[tuple[str, str], int] = {}
        try:
            for count, task in enumerate(left, len(tasks) - len(left) + 1):
                target = _target(task) if protocol.to_target else None
                measured = measurer.measure(
                    task.instance,
                    task.solver,
                    seed=task.seed,
                    budget=task.budget,
                    fill=protocol.fill,
                    target=target,
                )
                record = _record(task, measured, session, target)
                journal.append(record)
                if record["status"] == "skipped":
                    pair = (task.solver.label, str(record["message"]))
                    skipped[pair] = skipped.get(pair, 0) + 1
                tell(Progress(count, len(tasks), task, record))
        finally:
            measurer.close()
            for (label, why), many in skipped.items():
                note(f"{label}: {many} solves skipped: {why}")
        return journal.records


def _once(tasks: Iterable[Task]) -> list[Task]:
    """Without what would be the same measurement: instances of one content are one."""
    first: dict[Key, Task] = {}
    for task in tasks:
        first.setdefault(task.key, task)
    return list(first.values())


def _labels(journal: Journal) -> dict[str, str]:
    """The solver's key of every label that has been measured."""
    return {r["solver"]: r["solver_key"] for r in journal.records if r["type"] == "solve"}


def _refuse_other_solvers(solvers: Sequence[SolverSpec], journal: Journal) -> None:
    """Two solvers under one label would be averaged into one row."""
    before = _labels(journal)
    for spec in solvers:
        if before.get(spec.label, spec.key) != spec.key:
            raise BenchError(
                f"{journal.path} holds runs of another solver labelled {spec.label!r}: "
                f"{before[spec.label]}, not {spec.key}; give this one another label "
                "(label@name), or choose another --out"
            )


def _tell_other_labels(
    solvers: Sequence[SolverSpec], journal: Journal, note: Callable[[str], None]
) -> None:
    before = {key: label for label, key in _labels(journal).items()}
    for spec in solvers:
        label = before.get(spec.key, spec.label)
        if label != spec.label:
            note(f"{spec.label}: was measured before as {label!r}; those runs keep that label")


def _keep_known(folder: Path, instances: Sequence[Instance], journal: Journal) -> None:
    """Planted and published values are on disk before the first solve: gaps and hits of a run that
    is killed are against them as well."""
    path = folder / FILE
    before = read_best_known(path) if path.exists() else {}
    after = dict(before)
    for i in instances:
        if i.best is not None:
            after[i.sha256] = merged(after[i.sha256], i.best) if i.sha256 in after else i.best
    if after != before:
        names = {r["sha256"]: r["instance"] for r in journal.records if r["type"] == "solve"}
        write_best_known(path, after, names | {i.sha256: i.name for i in instances})


def _counts(record: Mapping[str, Any], retry_errors: bool) -> bool:
    if record["type"] != "solve":
        return False
    return not (retry_errors and record["status"] in ("error", "skipped"))


def _key(r: Mapping[str, Any]) -> Key:
    return (r["sha256"], r["solver_key"], r["seed"], r["budget"], r["mode"])


def _target(task: Task) -> float | None:
    best = task.instance.best
    return None if best is None else best.energy + best.tolerance  # where a hit begins


def _session(number: int, solvers: Sequence[SolverSpec], protocol: Protocol) -> dict[str, Any]:
    return {
        "type": "session",
        "number": number,
        "started": _now(),
        "solvers": {s.label: s.key for s in solvers},
        "budgets": list(protocol.budgets),
        "seeds": protocol.seeds,
        "mode": protocol.mode,
        **describe(*_PEERS, at=Path(__file__).parent),
    }


def _record(
    task: Task, measured: Mapping[str, Any], session: int, target: float | None
) -> dict[str, Any]:
    """The journal's line of one solve."""
    i = task.instance
    return {
        "type": "solve",
        "instance": i.name,
        "family": i.family,
        "kind": i.kind,
        "n": i.n,
        "k": i.k,
        "sha256": i.sha256,
        "solver": task.solver.label,
        "solver_key": task.solver.key,
        "seed": task.seed,
        "budget": task.budget,
        "mode": task.mode,
        "target": target,
        "session": session,
        "at": _now(),
        **measured,
    }


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
