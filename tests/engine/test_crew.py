"""Layers decided in other processes: the same bits, the same steps, and errors at their place."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optiprune import optimize_masks
from optiprune.config import Config, ConfigError
from optiprune.durable import Journal
from optiprune.engine import StepFailedError
from optiprune.engine.crew import require_crew, works_on
from optiprune.engine.layer_job import WorkerMismatchError, require_alike, traits
from optiprune.engine.steps import JournalSteps
from optiprune.executors import ExecutorError
from optiprune.solvers import get

# a module of the user's, which no worker has installed
OWN = """
import time
from dataclasses import dataclass
from optiprune.problems import CardinalityQP
from optiprune.solvers import BaseSolver, Capabilities, Outcome, Status, get


@dataclass(frozen=True)
class Own(BaseSolver):
    seconds: float = 0.0
    fail_at: int = 0
    name = "own"
    capabilities = Capabilities(frozenset({CardinalityQP}))

    def _solve(self, problem, x0, seed, watch):
        time.sleep(self.seconds)
        if problem.n == self.fail_at:
            raise ArithmeticError("no luck")
        found = get("tabu", iterations=50).solve(problem, x0=x0, seed=seed)
        return Outcome(found.x, Status.FEASIBLE, watch.stats("end"))
"""
BASE = {
    "threads": 1,
    "batches": {"size": 16},
    "solver": {"name": "tabu", "iterations": 200},
    "tune": {"epochs": 0},
}
CASES: dict[str, dict[str, Any]] = {
    "refit, pruned inputs": {"allocation": {"method": "uniform"}},
    "refit, dense inputs": {"curvature": {"inputs": "dense"}},
    "masks alone": {"prune": {"refit": False}, "curvature": {"inputs": "dense"}},
    "2:4, windows": {
        "prune": {"pattern": "2:4"},
        "window": {"epochs": 1},
        "layers": {"types": ["Linear"]},
    },
    "blocks": {
        "prune": {"pattern": "block:2x4"},
        "curvature": {"inputs": "dense"},
        "layers": {"types": ["Linear"]},
    },
    "two threads": {"threads": 2, "curvature": {"inputs": "dense"}},
}


class Attention(nn.Module):
    """Three layers that are called with one tensor, and one after them."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.o(torch.tanh(self.q(x) * self.k(x)) + self.v(x))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1, groups=2),
        nn.Flatten(),
        nn.Linear(32, 16),
        Attention(),
        Attention(),
        nn.Linear(16, 4),
    ).eval()


def run(case: str, *, solver: Any = None, callback: Any = None, steps: Any = None, **more: Any):
    config = {**BASE, **CASES[case], **more}
    prune = {"objective": "reconstruction", "sparsity": 0.5, **config.pop("prune", {})}
    model = network()
    data = [torch.randn(200, 2, 2, 2, generator=torch.Generator().manual_seed(1))]
    result = optimize_masks(
        model,
        data,
        config={**config, "prune": prune},
        solver=solver,
        callback=callback,
        steps=steps,
    )
    return result, model.state_dict()


def assert_same(got: Any, want: Any) -> None:
    assert got[1].keys() == want[1].keys()
    for name, value in want[1].items():
        assert torch.equal(got[1][name], value), name
    one, other = ([_untimed(r) for r in found[0].history] for found in (got, want))
    assert one == other
    layers = ([_untimed(r) for r in found[0].report.layers] for found in (got, want))
    assert next(layers) == next(layers)


def _untimed(record: Any) -> dict[str, Any]:
    """As plain values, and of a trajectory the energies alone."""
    table = {k: v for k, v in asdict(record).items() if not k.endswith("_s")}
    return table | {"trajectory": [e for _, e in table.get("trajectory", ())]}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "own_solver.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    import own_solver

    yield own_solver
    del sys.modules["own_solver"]


def processes(workers: int = 2, **more: Any) -> dict[str, Any]:
    return {"workers": workers, "executor": {"kind": "processes", **more}}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_processes_decide_the_same_bits(case: str) -> None:
    want = run(case)
    assert_same(run(case, **processes(2, ahead=0 if "2:4" in case else 3)), want)


@pytest.mark.slow
def test_steps_are_those_of_a_run_in_one_process(tmp_path: Path) -> None:
    case = "refit, dense inputs"
    want = run(case, steps=tmp_path / "one")
    assert_same(run(case, steps=tmp_path / "many", **processes(3)), want)
    # their contents tell the time, too
    one, many = ([e.key for e in Journal(tmp_path / name).entries] for name in ("one", "many"))
    assert one == many


class KilledError(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("case", ["refit, pruned inputs", "refit, dense inputs"])
def test_a_run_that_was_stopped_goes_on_elsewhere(case: str, tmp_path: Path) -> None:
    want = run(case)
    store = JournalSteps(Journal(tmp_path))
    left = iter(range(4))
    put = store.put

    def put_four(key: str, arrays: Any, record: Any) -> None:
        if next(left, None) is None:
            raise KilledError
        put(key, arrays, record)

    class Stopping:
        __contains__, get, check = store.__contains__, store.get, store.check
        put = staticmethod(put_four)

    with pytest.raises(KilledError):
        run(case, steps=Stopping(), **processes(2))
    there = len(store.journal.entries)
    assert there == 4
    assert_same(run(case, steps=tmp_path, **processes(1)), want)  # goes on with another number
    assert len(Journal(tmp_path).entries) > there
    assert_same(run(case, steps=tmp_path), want)  # and is there for a run without processes


@pytest.mark.slow
def test_a_solver_of_the_users_fails_at_its_layer(own: Any) -> None:
    case = "masks alone"
    solver = own.Own(fail_at=16)
    with pytest.raises(StepFailedError) as here:
        run(case, solver=solver, batches={"size": 64})
    with pytest.raises(StepFailedError, match="ArithmeticError: no luck") as there:
        run(case, solver=solver, batches={"size": 64}, **processes(2))
    assert str(there.value) == str(here.value)
    want, got = here.value.partial, there.value.partial
    assert all(torch.equal(got.masks[name], mask) for name, mask in want.masks.items())
    assert len(got.history) == len(want.history) > 0


def test_a_solver_that_cannot_be_sent_is_an_error_before_work_starts() -> None:
    class Locked:
        name = "locked"
        capabilities = get("tabu").capabilities

        def __init__(self) -> None:
            import threading

            self.lock = threading.Lock()

    called: list[object] = []
    with pytest.raises(ExecutorError, match="solver 'locked' cannot be sent to another process"):
        run("masks alone", solver=Locked(), callback=called.append, **processes(2))
    assert called == []


def test_workers_that_would_decide_otherwise_are_refused() -> None:
    expected = traits(1, "cpu")
    require_alike(expected, 1, "cpu")
    with pytest.raises(WorkerMismatchError, match=r"torch is 2.* there and 1.0 here"):
        require_alike({**expected, "torch": "1.0"}, 1, "cpu")
    with pytest.raises(WorkerMismatchError, match=r"how sums are rounded is .* kind of proc"):
        require_alike({**expected, "how sums are rounded": "another"}, 1, "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(WorkerMismatchError, match="torch sees none"):
            require_alike({}, 1, "cuda")


def test_a_model_on_a_gpu_is_not_decided_on_the_cpu() -> None:
    cuda, solver = torch.device("cuda"), get("tabu")
    config = Config.from_table({"executor": "processes"})
    with pytest.raises(ConfigError, match="the model is on 'cuda', and executor = 'processes'"):
        require_crew(config, solver, None, cuda)
    gpus = Config.from_table({"executor": {"kind": "ray", "gpus": 0.5}})
    assert works_on(gpus, torch.device("cpu")) == works_on(Config(), cuda) == "cuda"


@pytest.mark.slow
def test_a_node_that_is_killed_changes_no_mask(own: Any, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    case, memory = "masks alone", 100 << 20
    solver = own.Own(seconds=0.01)
    want = run(case, solver=solver)
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": memory}
    )
    try:
        nodes = [cluster.add_node(num_cpus=1, object_store_memory=memory) for _ in range(3)]
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False)

        def kill(record: Any) -> None:
            if nodes and record.layers == ("3.q",):
                cluster.remove_node(nodes.pop(), allow_graceful=False)

        got = run(case, solver=solver, callback=kill, workers=3, executor="ray", steps=tmp_path)
        assert nodes[2:] == []
        again = [n for n in got[0].report.notes if "workers were lost" in n]
        # the node had one CPU: the one layer that it was at, at the most
        assert sum(note.count("layer '") for note in again) <= 1
        assert_same(got, want)
        assert_same(run(case, solver=solver, **processes(1), steps=tmp_path), want)
    finally:
        ray.shutdown()
        cluster.shutdown()
