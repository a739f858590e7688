"""What a solver hands back is taken in as plain values; its time is that of its process."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from optiprune import solvers
from optiprune.bench.protocol import SolverSpec, parse_solvers
from optiprune.bench.protocol import measure as module
from optiprune.bench.protocol.measure import measure
from optiprune.problems import CardinalityQP
from optiprune.solvers import (
    BaseSolver,
    Capabilities,
    Outcome,
    Solution,
    SolveStats,
    Status,
    UnsupportedProblemError,
)

from .conftest import small

Answer = Callable[[Any], Solution]


class Told:
    """Follows the protocol alone, and answers what a test says."""

    name = "told"
    capabilities = Capabilities(frozenset({CardinalityQP}))
    answers: ClassVar[list[Answer]] = []
    limits: ClassVar[list[float]] = []

    def solve(self, problem: Any, *, x0: Any = None, seed: Any = 0, stop: Any = None) -> Solution:
        self.limits.append(solvers.stop.limits(stop).time_s)
        at = min(len(self.limits), len(self.answers)) - 1
        return self.answers[at](problem)

    def solve_many(self, problems: Any, **how: Any) -> list[Solution]:
        return [self.solve(p) for p in problems]


class Tree(Told):
    """The same as a tree search."""

    name = "tree"
    capabilities = Capabilities(frozenset({CardinalityQP}), exact=True)


@pytest.fixture
def told() -> Iterator[type[Told]]:
    Told.answers.clear()
    Told.limits.clear()
    solvers.register("told", Told)
    solvers.register("tree", Tree)
    yield Told
    solvers.unregister("told")
    solvers.unregister("tree")


def spec(name: str) -> SolverSpec:
    (only,) = parse_solvers(name)
    return only


def ones(problem: Any, shift: int = 0) -> np.ndarray:
    return np.roll(np.repeat([1, 0], 6), shift).astype(np.int8)


def answer(
    problem: Any,
    shift: int = 0,
    *,
    bound: Any = None,
    status: Status = Status.FEASIBLE,
    **stats: Any,
) -> Solution:
    x = ones(problem, shift)
    return Solution(x, problem.energy(x), bound, status, SolveStats("told", **stats))


def once(told: type[Told], *answers: Answer, name: str = "told") -> dict[str, Any]:
    told.answers[:] = answers
    record = measure(small(), spec(name), seed=0, budget=5.0, fill=False)
    json.dumps(record, allow_nan=False)  # whatever it is, the journal can hold it
    return record


def test_numbers_of_numpy_and_nothing_at_all_are_written_as_plain_values(told: type[Told]) -> None:
    def odd(p: Any) -> Solution:
        e = p.energy(ones(p))
        way = ((0.0001, np.inf), (0.0002, np.float32(e + 1)), (0.0003, math.nan))
        return answer(
            p,
            bound=np.float32(e - 1),
            moves=np.int64(3),
            message=None,
            stop_reason=Status.FEASIBLE,
            trajectory=way,
        )

    r = once(told, odd)
    assert (r["status"], r["message"], r["moves"]) == ("feasible", "", 3)
    assert isinstance(r["stop_reason"], str)
    assert r["bound"] == pytest.approx(r["energy"] - 1, rel=1e-5)
    assert all(math.isfinite(v) for point in r["trajectory"] for v in point)


@pytest.mark.parametrize(
    "odd",
    [
        {"moves": "many"},
        {"bound": "low"},
        {"trajectory": ((0.1, "e"),)},
        {"trajectory": 5},
        {"message": "\ud800"},
    ],
)
def test_what_is_no_number_is_an_error_of_the_solver(told: type[Told], odd: dict[str, Any]) -> None:
    r = once(told, lambda p: answer(p, **odd))
    if "message" in odd:  # text of any kind can be written
        assert (r["status"], r["message"]) == ("feasible", "?")
    else:
        assert r["status"] == "error"
        assert r["energy"] is None
        assert "Error: " in r["message"]


def test_no_solution_at_all_is_an_error(told: type[Told]) -> None:
    assert once(told, lambda _: None)["status"] == "error"  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    "times", [(-5.0,), (0.0,), (math.nan,), (0.002, 0.001), (-1.0, 0.001), (math.inf,)]
)
def test_times_that_no_clock_of_the_solve_gives_are_the_end(
    told: type[Told], times: tuple[float, ...]
) -> None:
    def early(p: Any) -> Solution:
        time.sleep(0.02)
        e = p.energy(ones(p))
        way = [(t, e + len(times) - i - 1) for i, t in enumerate(times)]
        return answer(p, trajectory=tuple(way))

    r = once(told, early)
    ((t, _),) = r["trajectory"]
    assert t == pytest.approx(r["cpu_s"], abs=1e-5)


def test_times_past_the_end_are_the_end(told: type[Told]) -> None:
    def late(p: Any) -> Solution:
        e = p.energy(ones(p))
        return answer(p, trajectory=((1e-6, e + 1), (1e6, e)))

    r = once(told, late)
    assert [e - r["energy"] for _, e in r["trajectory"]] == [1, 0]
    assert r["trajectory"][-1][0] <= r["cpu_s"] + 1e-6


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_a_solve_that_raises_has_cost_what_it_has_cost(told: type[Told]) -> None:
    def fail(_: Any) -> Solution:
        burn(0.05)
        raise RuntimeError

    r = once(told, fail)
    assert (r["status"], r["message"], r["starts"]) == ("error", "RuntimeError", 1)
    assert r["cpu_s"] >= 0.05


def test_a_solver_may_refuse_as_late_as_in_its_solve(told: type[Told]) -> None:
    def refuse(_: Any) -> Solution:
        raise UnsupportedProblemError("not today")

    assert once(told, refuse) == {"status": "skipped", "message": "not today"}


def test_reason_and_message_are_those_of_the_start_that_gave_the_answer(told: type[Told]) -> None:
    problem = small()
    best = min(range(12), key=lambda s: problem.energy(ones(problem, s)))

    def good(p: Any) -> Solution:
        return answer(p, best, stop_reason="completed", message="found it")

    def nothing(p: Any) -> Solution:
        burn(0.01)
        stats = SolveStats("told", stop_reason="time", message="UNKNOWN")
        return Solution(None, math.inf, None, Status.NO_INCUMBENT, stats)

    told.answers[:] = [nothing, good, nothing]
    r = measure(problem, spec("told"), seed=0, budget=0.05)
    assert r["starts"] > 2
    assert (r["stop_reason"], r["message"]) == ("completed", "found it")


class Clock:
    """Time that passes only in `until_the_limit`; the process gets ``share`` of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.share = 0.0, 1.0
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: self.now))
        monkeypatch.setattr(module, "cpu_seconds", lambda: self.now * self.share)

    def until_the_limit(self, p: Any) -> Solution:
        self.now += Told.limits[-1]
        return answer(p)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_tree_search_that_a_busy_machine_cut_off_is_solved_again_as_a_whole(
    told: type[Told], clock: Clock
) -> None:
    told.answers[:] = [clock.until_the_limit]
    clock.share = 0.5
    r = measure(small(), spec("tree"), seed=0, budget=1.0)
    assert told.limits == pytest.approx([1.0, 2.0])
    assert r["starts"] == 1  # the one that counts
    assert r["cpu_s"] == pytest.approx(1.0)


@pytest.mark.parametrize("share", [1.0, 0.9, 0.01])
def test_a_tree_search_is_not_begun_anew_with_what_its_limit_left(
    told: type[Told], clock: Clock, share: float
) -> None:
    told.answers[:] = [clock.until_the_limit]
    clock.share = share  # of 0.01: it waits for something, and not for the processor
    assert measure(small(), spec("tree"), seed=0, budget=1.0)["starts"] == 1
    assert told.limits == [1.0]


def test_further_starts_of_a_sampler_have_the_time_that_a_busy_machine_takes(
    told: type[Told], clock: Clock
) -> None:
    told.answers[:] = [clock.until_the_limit]
    clock.share = 0.5
    r = measure(small(), spec("told"), seed=0, budget=1.0)
    # half of the budget is left in CPU seconds, which take twice as long
    assert told.limits == pytest.approx([1.0, 1.0])
    assert r["cpu_s"] == pytest.approx(1.0)


@dataclass(frozen=True)
class Single(BaseSolver):
    """As the documentation shows, with energies in float32."""

    name: ClassVar[str] = "single"
    capabilities: ClassVar[Capabilities] = Capabilities(frozenset({CardinalityQP}))

    def _solve(self, problem: Any, x0: Any, seed: Any, watch: Any) -> Outcome:
        x = ones(problem)
        watch.offer(np.float32(problem.energy(x)))
        return Outcome(x, Status.FEASIBLE, watch.stats("completed"))


def test_energies_in_float32_are_written(told: type[Told]) -> None:
    solvers.register("single", Single)
    try:
        r = once(told, name="single")
    finally:
        solvers.unregister("single")
    assert r["status"] == "feasible"
    assert len(r["trajectory"]) == 1
