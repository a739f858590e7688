"""What many workers take for models of 1 to 405 billion parameters: a cost model, and its check.

    python -m benchmarks.cluster_model

Constants are fitted to the points of `benchmarks.cluster_points` and compared with points that were
kept apart; then the schedule of every block's layers is played through. Everything beyond the sizes
that were measured is extrapolated. Writes benchmarks/results/cluster_model.md.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from benchmarks.cluster_points import RESULT as POINTS
from benchmarks.layer_jobs import block_shapes

RESULT = Path(__file__).parent / "results" / "cluster_model.md"
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# 128 windows of 2048 tokens, a tenth of them held out; rows with batches, of the whole model
TOKENS, ROWS, AHEAD = 128 * 2048, 2500, 2
# bytes a second between machines: 10 Gbit/s
NETWORK = 1.25e9
# a CPU thread of this machine is one worker; so much faster in everything is another one
FASTER = (1.0, 100.0)


@dataclass(frozen=True, slots=True)
class Model:
    """A Llama-shaped network: hidden width, width of keys and values, of the MLP, blocks."""

    name: str
    hidden: int
    kv: int
    wide: int
    blocks: int

    @property
    def shapes(self) -> list[tuple[int, int]]:
        return block_shapes(self.hidden, self.kv, self.wide)

    @property
    def weights(self) -> int:
        """That take part, in all blocks."""
        return self.blocks * sum(r * c for r, c in self.shapes)

    @property
    def share(self) -> float:
        return min(1.0, ROWS / (self.blocks * sum(r for r, _ in self.shapes)))


MODELS = (
    Model("1B", 2048, 512, 8192, 16),
    Model("7B", 4096, 4096, 11008, 32),
    Model("70B", 8192, 1024, 28672, 80),
    Model("405B", 16384, 1024, 53248, 126),
)
# (layers of a stage by position, the column counts of its inputs), in the order in which they run
STAGES = (((0, 1, 2), 0), ((3,), 3), ((4, 5), 4), ((6,), 6))


def features(rows: int, cols: int, batched: int) -> list[float]:
    """What a decision's seconds are made of: leading directions, factors, products, row batches."""
    return [1.0, cols**2, cols**3, rows * cols**2, batched, batched * cols**2]


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU seconds of one thread of the machine that was measured.

    Attributes
    ----------
    decision : of `features`
    moment : for a multiply-add of the moments (a symmetric product takes half of cols^2 a position)
    product : for a multiply-add of a forward pass
    task, put, fetch : of Ray, for a task and for a byte
    """

    decision: tuple[float, ...]
    moment: float
    product: float
    task: float
    put: float
    fetch: float

    @classmethod
    def fitted(cls, points: dict[str, Any]) -> Costs:
        rows = [features(p["rows"], p["cols"], p["batched"]) for p in points["fitted"]]
        seconds = np.array([p["cpu_s"] for p in points["fitted"]])
        # relative errors count: a small layer's matters as much as a large one's
        found, _ = nnls(np.array(rows) / seconds[:, None], np.ones(len(seconds)))
        small = [s / (c * c / 2) for c, s in points["moments"][:-1]]
        ray = points["ray"]
        return cls(
            tuple(found),
            float(np.median(small)),
            points["products"][0][2] / math.prod(points["products"][0][:2]),
            ray["task_s"],
            ray["put_s_per_byte"],
            max(ray["fetch_s_per_byte"], 1.0 / NETWORK),
        )

    def decide(self, rows: int, cols: int, batched: int) -> float:
        return float(np.dot(self.decision, features(rows, cols, batched)))


@dataclass(frozen=True, slots=True)
class Need:
    """Of one block: seconds to hand out each stage, tasks' seconds, bytes and messages.

    ``stages`` holds (seconds of the process that hands out, seconds of each task).
    """

    stages: tuple[tuple[float, tuple[float, ...]], ...]
    sent: float
    returned: float
    decided: float
    handed: float
    tasks: int


def need(model: Model, costs: Costs, inputs: str) -> Need:
    forms = 3 if inputs == "pruned" else 1
    # a symmetric product costs half a full one: H alone, or H, C and D
    halves = 4 if inputs == "pruned" else 1
    forward = sum(r * c for r, c in model.shapes) * TOKENS * costs.product
    # the dense form once; the pruned one for every stage, and to go on
    passes = 1.0 if inputs == "dense" else 1.0 + len(STAGES) + 1.0
    stages, sent, returned = [], 0.0, 0.0
    for layers, first in STAGES:
        cols = model.shapes[first][1]
        gram = halves * cols**2 / 2 * TOKENS * costs.moment
        moments = 3 * forms * cols**2 * 8.0  # of two parts and of the samples that judge
        tasks = []
        for i in layers:
            rows, _ = model.shapes[i]
            batched = math.ceil(model.share * rows)
            weights = 2.0 * rows * cols + rows * cols  # half precision, and a mask
            returned += weights
            sent += weights
            tasks.append(costs.decide(rows, cols, batched))
        sent += moments
        handed = gram + moments * costs.put + forward * passes / len(STAGES)
        stages.append((handed, tuple(tasks)))
    decided = sum(sum(tasks) for _, tasks in stages)
    handed = sum(h for h, _ in stages)
    return Need(tuple(stages), sent, returned, decided, handed, len(model.shapes))


def seconds(model: Model, costs: Costs, inputs: str, workers: int, faster: float) -> float:
    """Wall-clock time with so many workers; bytes and tasks do not get faster with the workers."""
    one = need(model, costs, inputs)
    move = (one.sent + one.returned) / one.tasks * costs.fetch + costs.task
    stages = [(h / faster, [t / faster + move for t in ts]) for h, ts in one.stages]
    if inputs == "pruned":
        block = sum(h + _played([(0.0, ts)], workers) for h, ts in stages)
        return model.blocks * block
    return _played(stages * model.blocks, workers)


def _played(stages: Sequence[tuple[float, Sequence[float]]], workers: int) -> float:
    """End of the last task: each stage is made ready in turn, its tasks taken as workers come
    free."""
    ready = 0.0
    free = [0.0] * workers
    ends: list[float] = []
    for made, tasks in stages:
        for i, task in enumerate(tasks):
            if len(ends) >= workers + AHEAD:  # back pressure: one has to end first
                ready = max(ready, heapq.heappop(ends))
            ready += made if i == 0 else 0.0
            end = max(ready, heapq.heappop(free)) + task
            heapq.heappush(free, end)
            heapq.heappush(ends, end)
    return max(free)


def duration(s: float) -> str:
    for unit, name in ((86400 * 365, "years"), (86400, "d"), (3600, "h"), (60, "min")):
        if s >= unit:
            return f"{s / unit:.3g} {name}"
    return f"{s:.3g} s"


def main() -> None:
    points = json.loads(POINTS.read_text())
    costs = Costs.fitted(points)
    RESULT.write_text(_text(points, costs))
    print(RESULT.read_text())


def _checks(points: dict[str, Any], costs: Costs) -> str:
    def line(p: dict[str, Any], what: str) -> str:
        said = costs.decide(p["rows"], p["cols"], p["batched"])
        return (
            f"| {what} | {p['rows']} x {p['cols']}, {p['batched']} batched | {p['cpu_s']:.3g} | "
            f"{said:.3g} | {said / p['cpu_s']:.2f} |"
        )

    lines = [line(p, "fitted") for p in points["fitted"]]
    lines += [line(p, "checked") for p in points["checked"]]
    block = points["block"]
    was = sum(p["cpu_s"] for p in block)
    said = sum(costs.decide(p["rows"], p["cols"], p["batched"]) for p in block)
    lines.append(f"| checked | a block of 7 layers | {was:.3g} | {said:.3g} | {said / was:.2f} |")
    cols, spent = points["moments"][-1]
    said = costs.moment * cols * cols / 2
    lines.append(
        f"| checked | moments of {cols} inputs, a position | {spent:.3g} | {said:.3g} | "
        f"{said / spent:.2f} |"
    )
    rows, cols, spent = points["products"][-1]
    said = costs.product * rows * cols
    lines.append(
        f"| checked | {rows} x {cols} forward, a position | {spent:.3g} | {said:.3g} | "
        f"{said / spent:.2f} |"
    )
    return "\n".join(lines)


def _needs(costs: Costs) -> str:
    lines = []
    for model in MODELS:
        for inputs in ("dense", "pruned"):
            one, n = need(model, costs, inputs), model.blocks
            multiply = n * one.decided / costs.product
            lines.append(
                f"| {model.name} | {inputs} | {model.weights / 1e9:.1f} | {n * one.tasks} | "
                f"{2 * multiply:.1e} | {duration(n * one.decided)} | {duration(n * one.handed)} | "
                f"{n * one.sent / 1e9:.0f} | {n * one.returned / 1e9:.0f} | "
                f"{_largest(model, inputs):.1f} |"
            )
    return "\n".join(lines)


def _largest(model: Model, inputs: str) -> float:
    """GB of the Gram matrices of the widest layer."""
    return 3 * (3 if inputs == "pruned" else 1) * model.wide**2 * 8 / 1e9


def _times(costs: Costs, faster: float) -> str:
    lines = []
    for model in MODELS:
        for inputs in ("dense", "pruned"):
            times = [seconds(model, costs, inputs, w, faster) for w in WORKERS]
            cells = [duration(t) for t in times]
            gains = f"{times[0] / times[-1]:.1f}"
            lines.append(f"| {model.name} | {inputs} | {' | '.join(cells)} | {gains} |")
    return "\n".join(lines)


def _text(points: dict[str, Any], costs: Costs) -> str:
    head = " | ".join(str(w) for w in WORKERS)
    rule = "|".join("---:" for _ in WORKERS)
    tables = []
    for faster in FASTER:
        said = (
            "A worker is one thread of the machine that was measured"
            if faster == 1.0
            else f"Worked example: everything that is computed is {faster:g} times as fast. Not "
            "measured: no accelerator was at hand"
        )
        tables.append(
            f"{said}.\n\n| model | inputs | {head} | 256 against 1 |\n|---|---|{rule}|---:|\n"
            f"{_times(costs, faster)}"
        )
    widest = max(p["cols"] for p in [*points["fitted"], *points["checked"]])
    decision = ", ".join(f"{c:.2g}" for c in costs.decision)
    block = [costs.decide(p["rows"], p["cols"], p["batched"]) for p in points["block"]]
    two = _played([(0.0, block)], 1) / _played([(0.0, block)], 2)
    return f"""# What many workers take

`python -m benchmarks.cluster_points && python -m benchmarks.cluster_model`

{points["machine"]}

Load while it was measured: {points["load"]:.1f}; CPU seconds, so that others' work counts little.

## The model against what was measured

CPU seconds of one thread. A decision takes c . (1, cols^2, cols^3, rows cols^2, batched,
batched cols^2)
with c = ({decision}). A multiply-add of the moments takes {costs.moment:.2g} s,
of a forward pass {costs.product:.2g} s; a Ray task {1e3 * costs.task:.1f} ms; a byte
{costs.put:.2g} s into the store, and {costs.fetch:.2g} s to another machine (the slower of what was
measured between two nodes here and of 10 Gbit/s).

| | what | measured | model | model / measured |
|---|---|---:|---:|---:|
{_checks(points, costs)}

That block's layers, played through on two workers: {two:.2f} times one; measured: workers.md.

## What models need

{TOKENS} tokens, half of the weights kept, weights re-fitted, a uniform density, no tuning. 'Inputs'
is `curvature.inputs`. FLOPs are those that the decisions' seconds would be at the rate of a forward
pass. Handing out is what stays in one process: forward passes, moments, the object store.

| model | inputs | weights, 1e9 | tasks | FLOPs | decisions | handing out | GB sent | GB back \
| GB, widest layer |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|
{_needs(costs)}

## Time by the number of workers

Extrapolated: the widest layer that was measured has {widest} inputs, the widest below 53248.

{(chr(10) * 2).join(tables)}
"""


if __name__ == "__main__":
    main()
