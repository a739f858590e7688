"""Tasks in processes of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

from optiprune.config import ExecutorOptions
from optiprune.executors import ExecutorError, Shared, Task, WorkerLostError
from optiprune.executors.processes import ProcessExecutor

pytestmark = pytest.mark.slow
# workers cannot import this file: what it defines is sent along
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def executor() -> Iterator[ProcessExecutor]:
    made = ProcessExecutor(2, ExecutorOptions(kind="processes", retries=1))
    yield made
    made.close()


def total(factor: float, array: Any) -> float:
    return factor * float(array.sum())


def die_once(marks: Path, number: int) -> int:
    """Kills its process the first time."""
    with open(marks / str(number), "a") as file:
        file.write("x")
    if number == 2 and len((marks / str(number)).read_text()) == 1:
        os._exit(9)
    time.sleep(0.05)
    return number


def test_shared_values_are_sent_once_and_forgotten(executor: ProcessExecutor) -> None:
    arrays = [np.full(1000, float(i)) for i in range(3)]
    shared = [Shared(a) for a in arrays]
    tasks = [Task(f"{i} {f}", total, (f,), (shared[i],)) for i in range(3) for f in (1.0, 2.0)]
    want = [f * a.sum() for a in arrays for f in (1.0, 2.0)]
    folder = Path(executor._folder.name)
    assert list(executor.run(tasks)) == want
    assert len(list(folder.iterdir())) == 3
    del shared, tasks
    assert list(folder.iterdir()) == []


def test_a_lost_process_costs_its_task_alone(executor: ProcessExecutor, tmp_path: Path) -> None:
    tasks = [Task(str(i), partial(die_once, tmp_path, i)) for i in range(8)]
    assert list(executor.run(tasks)) == list(range(8))
    assert executor.repeated == ["2"]
    runs = {int(p.name): len(p.read_text()) for p in tmp_path.iterdir()}
    assert runs == {i: 2 if i == 2 else 1 for i in range(8)}


def test_a_task_that_kills_every_worker_is_given_up(executor: ProcessExecutor) -> None:
    tasks = [Task("good", partial(int, 3)), Task("bad", partial(os._exit, 1))]
    results = executor.run(tasks)
    assert next(results) == 3
    with pytest.raises(WorkerLostError, match="bad lost its worker 2 times"):
        next(results)
    assert list(executor.run([Task("good", partial(int, 4))])) == [4]


def test_what_cannot_be_sent_is_an_error_that_names_it(executor: ProcessExecutor) -> None:
    with pytest.raises(ExecutorError, match=r"the lock cannot be sent .*: TypeError"):
        executor.everywhere(Task("the lock", print, (threading.Lock(),)))


def test_a_module_that_workers_do_not_have_is_named(
    executor: ProcessExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = type(sys)("only_here")
    exec("def f():\n    return 1\nf.__module__ = 'only_here'", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    with pytest.raises(ExecutorError, match=r"a worker cannot import .* 'only_here'"):
        executor.everywhere(Task("f", module.f))


def test_a_script_needs_no_guard_and_may_define_a_solver(tmp_path: Path) -> None:
    script = tmp_path / "own.py"
    script.write_text(
        """
import torch
from dataclasses import dataclass
from typing import ClassVar
from optiprune import optimize_masks
from optiprune.problems import CardinalityQP
from optiprune.solvers import BaseSolver, Capabilities, Outcome, Status, Watch

@dataclass(frozen=True)
class First(BaseSolver):
    name: ClassVar[str] = "first"
    capabilities: ClassVar[Capabilities] = Capabilities(frozenset({CardinalityQP}))

    def _solve(self, problem, x0, seed, watch):
        return Outcome(x0, Status.FEASIBLE, watch.stats("end"))

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
config = {"threads": 1, "workers": 2, "executor": "processes"}
result = optimize_masks(model, [torch.randn(50, 6)], sparsity=0.5, solver=First(),
                        objective="reconstruction", refit=False, config=config)
print("density", result.density)
"""
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("density 0.5") == 1
