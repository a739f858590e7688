"""Measured points for the cost model of many workers.

    python -m benchmarks.cluster_points

CPU seconds of one thread, each the least of some repetitions: decisions of layers, moments of
inputs, forward passes; and Ray's own costs between two nodes of this machine. Part of the points
are for the fit, the larger ones for the check. Writes benchmarks/results/cluster_points.json, which
`benchmarks.cluster_model` reads.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.layer_jobs import block_shapes, prepared
from benchmarks.machine import machine_line
from optiprune.config import ExecutorOptions
from optiprune.curvature import CalibrationSet, find_layers
from optiprune.curvature.gram import collect_grams
from optiprune.engine.layer_job import PackedGram, decide_layer, traits
from optiprune.executors import Shared, Task, open_executor

RESULT = Path(__file__).parent / "results" / "cluster_points.json"
FITTED = [(128, 256), (512, 256), (256, 512), (128, 768), (512, 512), (768, 384), (384, 896)]
FITTED += [(256, 1536), (256, 2048)]
CHECKED = [(576, 576), (1536, 576), (192, 1024), (1024, 1024), (576, 1536)]
CHECKED += [(512, 2048), (256, 3072)]
SHARES = (0.004, 0.06)


def cpu(work: Callable[[], Any], repeats: int) -> float:
    """CPU seconds, the least of the repetitions."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def decisions(shapes: list[tuple[int, int]], share: float, repeats: int) -> list[dict[str, Any]]:
    out = []
    for p in prepared(shapes, share):
        grams = [PackedGram.of(g) for g in p.grams]
        job, expected = p.job.sent(), traits(1, "cpu")
        seconds = cpu(lambda: decide_layer(job, expected, 1, "cpu", *grams), repeats)  # noqa: B023
        rows, cols = p.job.w.shape
        point = {"rows": rows, "cols": cols, "batched": math.ceil(share * rows), "cpu_s": seconds}
        print(point, flush=True)
        out.append(point)
    return out


def moments(cols: int, n: int) -> float:
    """Seconds for a position."""
    model = nn.Sequential(nn.Linear(cols, 8, bias=False))
    data = CalibrationSet.collect([torch.randn(n, cols)], torch.device("cpu"))
    layers, weights = find_layers(model), dict(model.named_parameters())
    return cpu(lambda: collect_grams(model, layers, weights, None, data, 2048), 3) / n


def products(rows: int, cols: int, n: int) -> float:
    """Seconds for a position through a linear layer."""
    layer, x = nn.Linear(cols, rows, bias=False), torch.randn(n, cols)
    with torch.no_grad():
        return cpu(lambda: layer(x), 5) / n


def nothing(*values: Any) -> int:
    return sum(int(np.asarray(v)[0]) for v in values)


def on_ray() -> dict[str, float]:
    """Seconds of an empty task, and for a byte into the store and on to another node."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    size, memory = 64 << 20, 400 << 20
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": memory}
    )
    try:
        cluster.add_node(num_cpus=1, object_store_memory=memory)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False)
        with open_executor(ExecutorOptions(kind="ray"), 1, 1) as executor:
            list(executor.run([Task("warm", nothing)] * 3))
            start = time.perf_counter()
            list(executor.run([Task("empty", nothing)] * 200))
            task = (time.perf_counter() - start) / 200
            puts, fetches = [], []
            for seed in range(4):
                array = np.random.default_rng(seed).normal(size=size // 8)
                start = time.perf_counter()
                ref = ray.put(array)
                puts.append(time.perf_counter() - start)
                del ref
                start = time.perf_counter()
                list(executor.run([Task("fetch", nothing, (), (Shared(array),))]))
                fetches.append(time.perf_counter() - start)
    finally:
        ray.shutdown()
        cluster.shutdown()
    put = min(puts) / size
    return {"task_s": task, "put_s_per_byte": put, "fetch_s_per_byte": min(fetches) / size - put}


def main() -> None:
    torch.set_num_threads(1)
    decisions([(64, 64)], 0.1, 1)  # compiles
    fitted = [p for share in SHARES for p in decisions(FITTED, share, 2)]
    checked = decisions(CHECKED, SHARES[0], 1)
    blocks = decisions(block_shapes(256, 128, 512), 0.1, 1)
    table = {
        "machine": machine_line().strip(),
        "load": os.getloadavg()[0],
        "fitted": fitted,
        "checked": checked,
        "block": blocks,
        "moments": [[c, moments(c, 8192)] for c in (256, 512, 1024, 2048)],
        "products": [[r, c, products(r, c, 2048)] for r, c in ((512, 512), (2048, 1024))],
        "ray": on_ray(),
    }
    RESULT.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
