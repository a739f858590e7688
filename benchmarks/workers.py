"""Layers side by side: one worker against two, on Ray and in processes.

    python -m benchmarks.workers [--repeats 3] [--blocks 6]

The layers of small transformer blocks are decided by one worker and by two, in turn, one thread
each; Gram matrices are made beforehand, workers are begun and warm. Masks and values are compared
with those that this process decides. On a machine that others use, too, the wall-clock time says
what was left over; so beside it stand the CPU time of the workers, the time that the last of them
to end waited for a core (Linux: /proc/PID/schedstat), and what two processes that share nothing
reach against one. Last, one of three Ray nodes is killed in the middle. Writes
benchmarks/results/workers.md.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.layer_jobs import CONFIG, Prepared, block_shapes, prepared
from benchmarks.machine import machine_line
from optiprune.config import Config
from optiprune.engine.crew import Crew, StageTasks, open_crew
from optiprune.engine.layer_job import LayerOutcome, PackedGram, decide_layer, traits
from optiprune.executors import Task
from optiprune.solvers import get

RESULT = Path(__file__).parent / "results" / "workers.md"
_SPIN = """
import time, numpy as np
x = np.random.default_rng(0).normal(size=(400, 400))
x @ x
t = time.perf_counter()
for _ in range(250): x @ x
print(time.perf_counter() - t)
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run over all layers.

    Attributes
    ----------
    wall : seconds
    workers : CPU seconds of each of them, the busiest first
    waited : seconds that the busiest was ready to run and had no core
    here : CPU seconds of this process and of Ray's own
    load : of the machine
    digest : of masks and values
    """

    wall: float
    workers: tuple[float, ...]
    waited: float
    here: float
    load: float
    digest: str


def digest(outcomes: Sequence[LayerOutcome]) -> str:
    """Of all masks and values, in order."""
    found = hashlib.sha256()
    for outcome in outcomes:
        assert outcome.values is not None
        found.update(np.packbits(outcome.mask.numpy()).tobytes())
        found.update(outcome.values.contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def here(layers: Sequence[Prepared]) -> str:
    """Decided by this process."""
    outcomes = []
    for p in layers:
        grams = [PackedGram.of(g) for g in p.grams]
        outcomes.append(decide_layer(p.job.sent(), traits(1, "cpu"), 1, "cpu", *grams))
    return digest(outcomes)


def tasks(crew: Crew, layers: Sequence[Prepared]) -> list[Task]:
    return [StageTasks(crew).task(p.job, p.grams) for p in layers]


def measured(kind: str, workers: int, layers: Sequence[Prepared]) -> Measured:
    executor = {"kind": kind, "address": "local"} if kind == "ray" else {"kind": kind}
    config = CONFIG.replace(executor=executor, workers=workers)
    with open_crew(config, get("auto"), None, torch.device("cpu")) as crew:
        assert crew is not None
        warm = list(prepared([(32, 64)] * 4 * workers, 0.1))
        list(crew.decide(tasks(crew, warm)))
        children = psutil.Process().children(recursive=True)
        before = {p: _times(p) for p in children}
        cpu, start = time.process_time(), time.perf_counter()
        outcomes = list(crew.decide(tasks(crew, layers)))
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        after = {p: _times(p) for p in children}
    spent = sorted(
        ((after[p][0] - before[p][0], after[p][1] - before[p][1]) for p in children), reverse=True
    )
    own, rest = spent[:workers], spent[workers:]
    here = cpu + sum(s for s, _ in rest)
    workers_s = tuple(s for s, _ in own)
    return Measured(wall, workers_s, own[0][1], here, os.getloadavg()[0], digest(outcomes))


def _times(process: psutil.Process) -> tuple[float, float]:
    """CPU seconds, and seconds that its main thread waited for a core."""
    try:
        times = process.cpu_times()
        waited = int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[1]) / 1e9
    except (psutil.NoSuchProcess, OSError):
        return 0.0, 0.0
    return float(times.user + times.system), waited


def machine_ratio() -> float:
    """What two processes do of the work of one in the same time, when they share nothing."""

    def seconds(n: int) -> float:
        command = [sys.executable, "-c", _SPIN]
        runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(n)]
        return median(float(run.communicate()[0]) for run in runs)

    return 2.0 * seconds(1) / seconds(2)


def killed(layers: Sequence[Prepared]) -> tuple[str, list[str], int]:
    """(digest, layers begun again, layers) where one of three nodes is killed in the middle."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 200 << 20}
    )
    try:
        nodes = [cluster.add_node(num_cpus=1, object_store_memory=200 << 20) for _ in range(3)]
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False)
        config = Config.replace(CONFIG, executor="ray", workers=3)
        with open_crew(config, get("auto"), None, torch.device("cpu")) as crew:
            assert crew is not None
            outcomes = []
            for outcome in crew.decide(tasks(crew, layers)):
                outcomes.append(outcome)
                if len(outcomes) == len(layers) // 3:
                    cluster.remove_node(nodes[0], allow_graceful=False)
            return digest(outcomes), list(crew.repeated), len(layers)
    finally:
        ray.shutdown()
        cluster.shutdown()


def row(kind: str, runs: dict[int, list[Measured]]) -> str:
    def of(n: int, what: Callable[[Measured], float]) -> float:
        return median(what(m) for m in runs[n])

    def ratios(what: Callable[[Measured], float]) -> list[float]:
        return [what(a) / what(b) for a, b in zip(runs[1], runs[2], strict=True)]

    walls = ratios(lambda m: m.wall)
    free = ratios(lambda m: m.wall - m.waited)
    busy = of(1, lambda m: sum(m.workers)) / of(2, lambda m: max(m.workers))
    cells = [
        kind,
        *(f"{of(n, lambda m: m.wall):.1f}" for n in (1, 2)),
        f"{median(walls):.2f} ({', '.join(f'{x:.2f}' for x in walls)})",
        *(f"{of(n, lambda m: m.waited):.1f}" for n in (1, 2)),
        f"{median(free):.2f} ({', '.join(f'{x:.2f}' for x in free)})",
        *(f"{of(n, lambda m: sum(m.workers)):.1f}" for n in (1, 2)),
        f"{busy:.2f}",
        f"{of(2, lambda m: m.here):.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--blocks", type=int, default=6)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    shapes = block_shapes(256, 128, 512) * options.blocks
    layers = list(prepared(shapes, 0.1))
    want = here(layers)
    kinds = ("ray", "processes")
    runs: dict[str, dict[int, list[Measured]]] = {k: {1: [], 2: []} for k in kinds}
    found, again, count = killed(layers)
    assert found == want, "a killed node changed the masks"
    ratios: list[float] = []
    for _ in range(options.repeats):
        ratios.append(machine_ratio())
        for kind in kinds:
            for workers in (1, 2):
                m = measured(kind, workers, layers)
                print(kind, workers, m, flush=True)
                assert m.digest == want, f"{kind} with {workers} workers decided otherwise"
                runs[kind][workers].append(m)
        load = median(m.load for by in runs.values() for ms in by.values() for m in ms)
        RESULT.write_text(_text(options, machine_line(), shapes, runs, ratios, load, again, count))
    print(RESULT.read_text())


def _text(
    options: argparse.Namespace,
    machine: str,
    shapes: list[tuple[int, int]],
    runs: dict[str, Any],
    ratios: list[float],
    load: float,
    again: list[str],
    count: int,
) -> str:
    import ray

    rows = "\n".join(row(kind, by) for kind, by in runs.items())
    ratio = f"{median(ratios):.2f} ({', '.join(f'{r:.2f}' for r in ratios)})"
    names = ", ".join(again) or "none"
    return f"""# One worker and two

`python -m benchmarks.workers --repeats {options.repeats} --blocks {options.blocks}`

{machine}
ray {ray.__version__}; seed 0; one thread a worker; medians of {len(ratios)} runs, in turn.
Load of the machine meanwhile (others are at work): {load:.1f} on {os.cpu_count()} cores.

{len(shapes)} layers, the shapes of transformer blocks ({shapes[0][1]} hidden, {shapes[-1][1]}
wide). Columns: seconds of one worker and of two, and the median of the ratios of neighbouring runs
(all of them in brackets); seconds that the busiest worker was ready and had no core, and the ratios
of the times without these waits: what a machine with free cores would show; CPU seconds of all
workers together, and those of one over those of the busier of two; CPU seconds of the process that
hands out the layers and of Ray's own.

| executor | 1, s | 2, s | ratio | waited, 1 | waited, 2 | ratio without waits | CPU s, 1 \
| CPU s, 2 | ratio of CPU s | elsewhere |
|---|---:|---:|---|---:|---:|---|---:|---:|---:|---:|
{rows}

Two processes that multiply matrices and share nothing, against one, in between: {ratio}.

All runs decided the same masks and values as this process alone, bit for bit. One of three Ray
nodes was killed when a third of the layers were there: the same masks and values, {len(again)} of
{count} layers begun again ({names}).
"""


if __name__ == "__main__":
    main()
