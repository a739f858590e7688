"""Results in order, with back pressure and retries, on a pool whose clock the test holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from optiprune.executors import Task, WorkerLostError
from optiprune.executors.ordered import LostError, in_order


class Scripted:
    """A pool that ends the task that was handed out last, and loses those it is told to lose."""

    def __init__(self, losses: dict[str, int] | None = None, *, first: bool = False) -> None:
        self.pick = min if first else max
        self.losses = dict(losses or {})
        self.log: list[str] = []
        self.under_way: list[Task] = []
        self.most = 0
        self.cancelled: list[str] = []

    def submit(self, task: Task) -> tuple[int, Task]:
        self.log.append(task.name)
        self.under_way.append(task)
        self.most = max(self.most, len(self.under_way))
        return len(self.log), task

    def wait(self, handles: Sequence[tuple[int, Task]]) -> tuple[int, Task]:
        return self.pick(handles, key=lambda h: h[0])

    def result(self, handle: tuple[int, Task]) -> Any:
        task = handle[1]
        self.under_way.remove(task)
        if self.losses.get(task.name, 0):
            self.losses[task.name] -= 1
            raise LostError("gone")
        return task.function(*task.args)

    def cancel(self, handles: Sequence[tuple[int, Task]]) -> None:
        self.cancelled += [h[1].name for h in handles]


def squares(n: int) -> Iterator[Task]:
    return (Task(str(i), lambda i=i: i * i) for i in range(n))


@pytest.mark.parametrize("most", [1, 2, 3, 50])
def test_results_come_in_the_order_of_the_tasks(most: int) -> None:
    pool = Scripted()
    assert list(in_order(pool, squares(20), most, 0, [])) == [i * i for i in range(20)]
    assert pool.most == min(most, 20)
    assert pool.cancelled == []


def test_tasks_are_asked_for_only_when_there_is_room() -> None:
    asked: list[int] = []

    def tasks() -> Iterator[Task]:
        for task in squares(100):
            asked.append(int(task.name))
            yield task

    results = in_order(Scripted(), tasks(), 2, 0, [])
    assert next(results) == 0
    # the pool ends the last one first: results wait for the first, but no more than four times two
    assert len(asked) == 8
    assert list(results) == [i * i for i in range(1, 100)]


def test_a_lost_task_is_done_again_and_no_other() -> None:
    pool, repeated = Scripted({"3": 2, "5": 1}), []
    assert list(in_order(pool, squares(8), 3, 2, repeated)) == [i * i for i in range(8)]
    assert sorted(repeated) == ["3", "3", "5"]
    assert sorted(pool.log) == sorted([str(i) for i in range(8)] + ["3", "3", "5"])


def test_a_task_that_is_lost_too_often_ends_the_run_at_its_place() -> None:
    pool = Scripted({"2": 5})
    results = in_order(pool, squares(50), 3, 1, [])
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(WorkerLostError, match=r"2 lost its worker 2 times \(executor.ret"):
        next(results)
    assert pool.log.count("2") == 2
    assert len(pool.log) < 20


def test_what_a_task_raises_comes_at_its_place_and_the_rest_is_called_off() -> None:
    def fail() -> None:
        raise KeyError("two")

    tasks = list(squares(30))
    tasks[2] = Task("2", fail)
    pool = Scripted()
    results = in_order(pool, tasks, 4, 3, [])
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(KeyError, match="two"):
        next(results)
    assert set(pool.cancelled) == {task.name for task in pool.under_way}


def test_a_run_that_is_left_calls_off_what_is_under_way() -> None:
    pool = Scripted(first=True)
    results = in_order(pool, squares(30), 4, 0, [])
    next(results)
    results.close()
    assert len(pool.under_way) == 4
    assert set(pool.cancelled) == {task.name for task in pool.under_way}
