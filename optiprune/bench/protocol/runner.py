"""Carry out a plan: what the journal holds is not measured again, what is measured is in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optiprune.bench.instances import Instance
from optiprune.bench.machine import describe
from optiprune.bench.records.journal import Journal
from optiprune.solvers import SolverError

from .plan import Key, Protocol, Task, plan
from .spec import SolverSpec
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
    retry_errors : measure again what ended in an error
    tell, note : called after each solve, and with what is left out

    Raises
    ------
    BenchError
        An instance that changed on the way, a journal in use or damaged.
    KeyboardInterrupt
        After Ctrl-C; all finished solves are in the journal.
    """
    usable = _usable(solvers, note)
    with Journal(folder) as journal:
        done = {_key(r) for r in journal.records if _counts(r, retry_errors)}
        tasks = list(plan(instances, usable, protocol))
        left = [t for t in tasks if t.key not in done]
        if not left:
            return journal.records
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


def _usable(solvers: Sequence[SolverSpec], note: Callable[[str], None]) -> list[SolverSpec]:
    """Solvers that can be made here; the others are named with the reason."""
    out = []
    for spec in solvers:
        try:
            spec.make()
        except Exception as e:  # whatever the package behind it does on import
            words = str(e) if isinstance(e, SolverError) else f"{type(e).__name__}: {e}"
            note(f"{spec.label}: left out: {words}")
        else:
            out.append(spec)
    return out


def _counts(record: Mapping[str, Any], retry_errors: bool) -> bool:
    return record["type"] == "solve" and not (retry_errors and record["status"] == "error")


def _key(r: Mapping[str, Any]) -> Key:
    return (r["sha256"], r["solver_key"], r["seed"], r["budget"], r["mode"])


def _target(task: Task) -> float | None:
    best = task.instance.best
    # the same assignment summed in another order
    return None if best is None else best.energy + 1e-9 * abs(best.energy)


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
