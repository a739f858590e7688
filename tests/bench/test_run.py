"""Measured solves, the worker process, resuming."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from optiprune import solvers
from optiprune.bench.errors import BenchError
from optiprune.bench.instances import BestKnown, Instance
from optiprune.bench.instances.instance import bits_of, hex_of, rounding
from optiprune.bench.protocol import Protocol, SolverSpec, parse_solvers, run_bench
from optiprune.bench.protocol.account import KEPT_POINTS
from optiprune.bench.protocol.measure import measure
from optiprune.bench.protocol.warming import warm_up
from optiprune.bench.records import (
    FILE,
    JOURNAL,
    read_best_known,
    read_journal,
    write_best_known,
)
from optiprune.problems import QUBO, CardinalityQP
from optiprune.solvers import BaseSolver, Capabilities, Outcome, Solution, SolveStats, Status

from .conftest import small

PROTOCOL = Protocol(budgets=(0.02,), seeds=2)


def silent(_: str) -> None:
    pass


def spec(text: str) -> SolverSpec:
    (only,) = parse_solvers(text)
    return only


@dataclass(frozen=True)
class Odd(BaseSolver):
    """Does what ``how`` says."""

    name: ClassVar[str] = "odd"
    capabilities: ClassVar[Capabilities] = Capabilities(frozenset({CardinalityQP}))

    how: str = "raise"

    def _solve(self, problem: Any, x0: Any, seed: Any, watch: Any) -> Outcome:
        if self.how == "raise":
            raise RuntimeError("no luck today")
        x = np.zeros(problem.n, np.int8)
        x[np.argsort(np.random.default_rng(seed).random(problem.n))[: int(problem.k[0])]] = 1
        if self.how == "improve":
            for i in range(1000):
                watch.offer(problem.energy(x) + 1000 - i)
        watch.offer(problem.energy(x))
        return Outcome(x, Status.FEASIBLE, watch.stats("completed"))


class Liar:
    """Follows the protocol alone, and claims energies that are none."""

    name = "liar"
    capabilities = Capabilities(frozenset({CardinalityQP}))

    def solve(self, problem: Any, *, x0: Any = None, seed: Any = 0, stop: Any = None) -> Solution:
        x = np.zeros(problem.n, np.int8)
        x[: int(problem.k[0])] = 1
        return Solution(x, -1e9, None, Status.FEASIBLE, SolveStats("liar"))

    def solve_many(self, problems: Any, **how: Any) -> list[Solution]:
        return [self.solve(p) for p in problems]


@pytest.fixture
def odd() -> Iterator[None]:
    solvers.register("odd", Odd)
    solvers.register("liar", Liar)
    yield
    solvers.unregister("odd")
    solvers.unregister("liar")


def test_a_solve_is_measured_and_recomputed() -> None:
    problem = small()
    warm_up(problem, spec("annealing"))  # compiles what is not in numba's cache
    r = measure(problem, spec("annealing"), seed=0, budget=0.05)
    assert r["status"] == "feasible"
    assert problem.energy(bits_of(r["x"], 12)) == pytest.approx(r["energy"])
    assert 0.04 <= r["cpu_s"] < 0.5
    assert r["starts"] > 1  # it ends by itself and is started again
    times, energies = zip(*r["trajectory"], strict=True)
    assert list(times) == sorted(times)
    assert energies[-1] == r["energy"] == min(energies)
    assert times[-1] <= r["cpu_s"]


def test_once_is_once_and_an_optimum_needs_no_second_start() -> None:
    assert measure(small(), spec("greedy"), seed=0, budget=5, fill=False)["starts"] == 1
    proven = measure(small(), spec("exhaustive"), seed=0, budget=5)
    assert (proven["status"], proven["starts"]) == ("optimal", 1)
    assert proven["bound"] == pytest.approx(proven["energy"])


def test_the_target_ends_a_solve() -> None:
    best = solvers.get("exhaustive").solve(small()).energy
    r = measure(small(), spec("annealing"), seed=0, budget=30, target=best + 1e-9)
    assert r["cpu_s"] < 10
    assert r["energy"] == pytest.approx(best)


def test_defects_of_a_solver_are_results(odd: None) -> None:
    broken = measure(small(), spec("odd"), seed=0, budget=0.01)
    assert broken["status"] == "error"
    assert broken["message"] == "RuntimeError: no luck today"
    lie = measure(small(), spec("liar"), seed=0, budget=0.01)
    assert lie["status"] == "error"
    assert "claims energy" in lie["message"]
    assert lie["energy"] is None


def test_what_a_solver_does_not_take_is_skipped(odd: None) -> None:
    for name in ("odd", "liar"):
        r = measure(QUBO(np.eye(3)), spec(name), seed=0, budget=0.01)
        assert r["status"] == "skipped"
        assert "QUBO" in r["message"]


def test_long_trajectories_are_thinned(odd: None) -> None:
    r = measure(small(), spec("odd:how=improve"), seed=0, budget=0.01, fill=False)
    assert len(r["trajectory"]) <= KEPT_POINTS
    assert r["trajectory"][-1][1] == r["energy"]


def test_a_run_measures_everything_and_is_not_repeated(
    tmp_path: Path, instances: list[Instance]
) -> None:
    chosen = parse_solvers("greedy,tabu")
    records = run_bench(instances, chosen, PROTOCOL, tmp_path, isolate=False, note=silent)
    solves = [r for r in records if r["type"] == "solve"]
    assert len(solves) == 2 * 2 * 2
    assert {(r["instance"], r["solver"], r["seed"]) for r in solves} == {
        (i.name, s, seed) for i in instances for s in ("greedy", "tabu") for seed in (0, 1)
    }
    (session,) = (r for r in records if r["type"] == "session")
    assert {"machine", "versions", "revision", "python", "solvers", "mode"} <= set(session)
    before = (tmp_path / JOURNAL).read_bytes()
    again = run_bench(instances, chosen, PROTOCOL, tmp_path, isolate=False, note=silent)
    assert (tmp_path / JOURNAL).read_bytes() == before
    assert again == records


def test_a_run_goes_on_where_it_was(tmp_path: Path, instances: list[Instance]) -> None:
    class Enough(Exception):
        pass

    def stop(progress: Any) -> None:
        if progress.done == 3:
            raise Enough

    chosen = parse_solvers("greedy,tabu")
    with pytest.raises(Enough):
        run_bench(instances, chosen, PROTOCOL, tmp_path, isolate=False, tell=stop, note=silent)
    first = read_journal(tmp_path)
    counts = []
    run_bench(
        instances,
        chosen,
        PROTOCOL,
        tmp_path,
        isolate=False,
        tell=lambda p: counts.append((p.done, p.total)),
        note=silent,
    )
    assert counts == [(i, 8) for i in range(4, 9)]
    records = read_journal(tmp_path)
    assert records[: len(first)] == first
    assert [r["session"] for r in records if r["type"] == "solve"] == [1] * 3 + [2] * 5


def test_errors_are_recorded_told_and_repeated_on_request(
    tmp_path: Path, instances: list[Instance], odd: None
) -> None:
    how: dict[str, Any] = {"isolate": False, "note": silent}
    chosen = parse_solvers("odd,greedy")
    first = run_bench(instances, chosen, PROTOCOL, tmp_path, **how)
    assert [r["status"] for r in first if r.get("solver") == "odd"] == ["error"] * 4
    assert [r["status"] for r in first if r.get("solver") == "greedy"] == ["feasible"] * 4
    assert run_bench(instances, chosen, PROTOCOL, tmp_path, **how) == first
    again = run_bench(instances, chosen, PROTOCOL, tmp_path, retry_errors=True, **how)
    assert len(again) == len(first) + 1 + 4


def test_what_cannot_take_part_is_said_and_tried_again_on_request(
    tmp_path: Path, instances: list[Instance]
) -> None:
    told: list[str] = []
    solvers.register("broken", "optiprune_no_such_package:Solver")
    chosen = parse_solvers("x@dimod:sampler=no_such_module:Sampler,greedy,broken")
    solvers.unregister("broken")
    chosen += [SolverSpec("tiny", "local-search", max_n=4)]
    how: dict[str, Any] = {"isolate": False, "note": told.append}
    first = run_bench(instances, chosen, PROTOCOL, tmp_path, **how)
    assert any(line.startswith("x: left out") and "no_such_module" in line for line in told)
    assert any(line.startswith("broken: left out") for line in told)
    assert any(line.startswith("tiny: 4 solves skipped") for line in told)
    # the licence, or the package, is there now
    chosen[-1] = SolverSpec("tiny", "local-search")
    assert run_bench(instances, chosen, PROTOCOL, tmp_path, **how) == first
    again = run_bench(instances, chosen, PROTOCOL, tmp_path, retry_errors=True, **how)
    assert [r["status"] for r in again if r.get("solver") == "tiny"][4:] == ["feasible"] * 4


def test_a_label_stands_for_one_solver_and_a_solver_is_measured_once(
    tmp_path: Path, instances: list[Instance]
) -> None:
    told: list[str] = []
    how: dict[str, Any] = {"isolate": False, "note": told.append}
    first = run_bench(instances, parse_solvers("m@greedy"), PROTOCOL, tmp_path, **how)
    with pytest.raises(BenchError, match=r"another solver labelled 'm'.*label@name.*--out"):
        run_bench(instances, parse_solvers("m@tabu"), PROTOCOL, tmp_path, **how)
    assert not told
    assert run_bench(instances, parse_solvers("y@greedy"), PROTOCOL, tmp_path, **how) == first
    assert told == ["y: was measured before as 'm'; those runs keep that label"]
    assert read_journal(tmp_path) == first


def test_instances_of_one_content_are_measured_once(
    tmp_path: Path, instances: list[Instance]
) -> None:
    twice = [instances[0], replace(instances[0], name="copy")]
    totals: list[int] = []
    records = run_bench(
        twice,
        parse_solvers("greedy"),
        PROTOCOL,
        tmp_path,
        isolate=False,
        tell=lambda p: totals.append(p.total),
    )
    assert totals == [2, 2]
    assert [r["instance"] for r in records if r["type"] == "solve"] == ["small-0"] * 2


def test_what_is_known_is_on_disk_before_the_first_solve(
    tmp_path: Path, instances: list[Instance]
) -> None:
    class Killed(Exception):
        pass

    def kill(_: Any) -> None:
        raise Killed

    best = solvers.get("exhaustive").solve(small())
    assert best.x is not None
    known = BestKnown(best.energy, "planted", hex_of(best.x), best.energy, "planted")
    before = {"0" * 64: BestKnown(1.0, "paper"), instances[1].sha256: BestKnown(-1e9, "paper")}
    write_best_known(tmp_path / FILE, before, {})
    better = [instances[0].with_best(known), instances[1].with_best(BestKnown(0.0, "x"))]
    with pytest.raises(Killed):
        run_bench(better, parse_solvers("greedy"), PROTOCOL, tmp_path, isolate=False, tell=kill)
    there = read_best_known(tmp_path / FILE)
    assert there[instances[0].sha256] == known
    assert before.items() <= there.items()


def test_every_record_tells_how_far_its_energies_are_rounded(
    tmp_path: Path, instances: list[Instance]
) -> None:
    chosen = [*parse_solvers("greedy"), SolverSpec("tiny", "tabu", max_n=4)]
    records = run_bench(instances, chosen, PROTOCOL, tmp_path, isolate=False, note=silent)
    told = {(r["instance"], r["rounding"]) for r in records if r["type"] == "solve"}
    assert told == {(i.name, rounding(i.load())) for i in instances}


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_bench_leaves_whole_results_and_goes_on(tmp_path: Path) -> None:
    import subprocess
    import sys

    out = tmp_path / "out"
    command = [sys.executable, "-m", "optiprune", "bench", "solvers", "--suite", "generators"]
    command += ["--sizes", "16", "--count", "1", "--solvers", "greedy", "--budget", "0.05"]
    command += ["--seeds", "3", "--no-isolate", "--no-plots", "--out", str(out)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (out / JOURNAL).exists() and len((out / JOURNAL).read_bytes().splitlines()) > 3:
            break
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (out / "summary.json").exists()
    first = read_journal(out)
    assert len(first) >= 3
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    records = read_journal(out)
    assert records[: len(first)] == first
    keys = [(r["sha256"], r["solver"], r["seed"]) for r in records if r["type"] == "solve"]
    assert len(keys) == len(set(keys)) == 5 * 1 * 3
    assert (out / "summary.json").exists()
    assert not list(out.glob(".*"))  # no temporary files
