"""Tasks on a Ray cluster of several nodes, all of them on this machine."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

from optiprune.config import ExecutorOptions
from optiprune.executors import ExecutorError, Shared, Task, WorkerLostError, open_executor

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow
# workers cannot import this file: what it defines is sent along
cloudpickle.register_pickle_by_value(sys.modules[__name__])

MEMORY = 100 << 20
RAY = ExecutorOptions(kind="ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that does no tasks, and three nodes of one CPU; the last test kills them."""
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": MEMORY}
    )
    try:
        nodes = [add_node(made, i) for i in range(3)]
        made.wait_for_nodes()
        ray.init(address=made.address, log_to_driver=False)
        yield made, nodes
    finally:
        ray.shutdown()
        made.shutdown()


def add_node(made: Any, number: int) -> Any:
    return made.add_node(num_cpus=1, resources={f"n{number}": 1}, object_store_memory=MEMORY)


def noted(folder: Path, number: int, seconds: float) -> tuple[int, str]:
    """Its number, and the node that did it; writes down that it was begun."""
    node = ray.get_runtime_context().get_node_id()
    with open(folder / f"{number}", "a") as file:
        file.write(f"{node}\n")
    time.sleep(seconds)
    return number, node


def dot(factor: float, array: Any) -> float:
    assert not array.flags.writeable  # a view of the object store
    return factor * float(array.sum())


def test_no_cluster_is_said_so() -> None:
    options = ExecutorOptions(kind="ray", address="127.0.0.1:1")
    said = r"no Ray cluster at executor\.address = '127\.0\.0\.1:1': .* refused; begin one with"
    with pytest.raises(ExecutorError, match=said), open_executor(options, 1, 1):
        pass


def test_one_of_three_nodes_is_killed(cluster: Any, tmp_path: Path) -> None:
    made, nodes = cluster
    tasks = [Task(str(i), partial(noted, tmp_path, i, 0.6)) for i in range(18)]
    with open_executor(RAY, 3, 1) as executor:
        found = []
        for number, _ in executor.run(tasks):
            found.append(number)
            if number == 4:
                gone = nodes[1].node_id
                made.remove_node(nodes[1], allow_graceful=False)
        repeated = list(executor.repeated)
    nodes[1] = add_node(made, 1)
    begun = {int(p.name): p.read_text().split() for p in tmp_path.iterdir()}
    assert found == list(range(18))
    # the node had one CPU: one task at the most was under way there, and it alone was begun again
    assert len(repeated) <= 1
    again = {i for i, where in begun.items() if len(where) > 1}
    assert again <= {int(name) for name in repeated}
    assert all(begun[i][0] == gone and begun[i][1] != gone for i in again)
    assert Counter(w for where in begun.values() for w in where)[gone] >= 1


def test_tasks_go_where_their_label_is_and_values_are_put_once(
    cluster: Any, tmp_path: Path
) -> None:
    _, nodes = cluster
    options = ExecutorOptions(kind="ray", resources={"n2": 0.5})
    with open_executor(options, 2, 1) as executor:
        found = list(executor.run(Task(str(i), partial(noted, tmp_path, i, 0)) for i in range(4)))
        shared = Shared(np.ones(300_000))
        tasks = [Task(str(f), dot, (f,), (shared,)) for f in (1.0, 2.0, 3.0)]
        assert list(executor.run(tasks)) == [3e5, 6e5, 9e5]
        assert len(executor._refs) == 1
        del shared, tasks
        assert len(executor._refs) == 0
    assert {node for _, node in found} == {nodes[2].node_id}


def test_what_no_node_has_is_an_error_before_work_starts(cluster: Any) -> None:
    for options, cpus, message in (
        (ExecutorOptions(kind="ray", gpus=1), 1, r"needs \(1 CPU, 1 GPU\).*have: .*1 n0"),
        (ExecutorOptions(kind="ray", resources={"big": 2}), 1, "2 big.*--resources"),
        (RAY, 64, "as many CPUs as `threads` says"),
    ):
        with pytest.raises(ExecutorError, match=message), open_executor(options, 1, cpus):
            pass


def test_what_a_task_raises_is_raised_as_it_was(cluster: Any) -> None:
    def fail() -> None:
        raise KeyError("mine")

    with open_executor(RAY, 3, 1) as executor, pytest.raises(KeyError, match="mine") as caught:
        list(executor.run([Task("f", fail)]))
    assert type(caught.value) is KeyError


def test_a_cluster_that_loses_all_nodes_ends_the_run(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, nodes = cluster
    monkeypatch.setattr("optiprune.executors.on_ray._LOOK", 1.0)
    tasks = [Task(str(i), partial(noted, tmp_path, i, 0.5)) for i in range(12)]
    with open_executor(RAY, 3, 1) as executor:
        results = executor.run(tasks)
        next(results)
        for node in nodes:
            made.remove_node(node, allow_graceful=False)
        with pytest.raises(WorkerLostError, match=r"no node of the Ray cluster|lost its worker"):
            list(results)
