"""The process of one cell: load, prune, check, measure.

    python -m benchmarks.quality.cell < request.json

The request names the file for the answer. The process ends, with all that it has started, when its
input is closed: a benchmark that was killed leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.models.lookup import find_model
from benchmarks.models.quality import QualityModel
from optiprune.bench.protocol.cpu_time import cpu_seconds
from optiprune.durable import replacing

from .grid import Cell, Density
from .layer_error import layer_errors
from .memory import peak_mib, reset_peak, resident_mib, watched_children
from .methods import Method
from .pruning import check_pruned, prune_with

__all__ = ["cell_of", "measure", "request_of"]

_DENSE = "dense_"


def request_of(cell: Cell, threads: int, answer: Path) -> dict[str, Any]:
    """What the process of a cell reads."""
    return {
        "model": cell.model,
        "density": str(cell.density),
        "method": cell.method.to_json(),
        "seed": cell.seed,
        "samples": cell.samples,
        "loss": cell.loss,
        "threads": threads,
        "answer": str(answer),
    }


def cell_of(request: Mapping[str, Any]) -> Cell:
    return Cell(
        request["model"],
        Density.parse(request["density"]),
        Method(**request["method"]),
        request["seed"],
        request["samples"],
        request["loss"],
    )


def measure(cell: Cell, threads: int) -> dict[str, Any]:
    """Prune and measure; what a record holds beside the cell's identity.

    Time, CPU time and memory are those of the method alone, processes that it starts included, from
    a loaded model with its data at hand to pruned weights. A method runs once on a tiny network
    before, so that compiling and loading of libraries is not in its time.
    """
    torch.set_num_threads(threads)
    model = find_model(cell.model)
    model.require()
    batches = model.calibration(cell.samples)
    pruned = model.load(cell.seed)
    group = None if cell.density.pattern is None else cell.density.pattern[1]
    layers = model.layers(pruned, group)
    left_out = sorted({la.name for la in model.layers(pruned)} - {la.name for la in layers})
    _warm_up(cell, threads)
    # the dense weights wait on disk: a copy in memory would count as the method's
    with tempfile.TemporaryFile() as stored:
        torch.save(pruned.state_dict(), stored)
        gc.collect()
        base = resident_mib()
        own_peak = reset_peak()
        cpu, wall = cpu_seconds(), time.perf_counter()
        with watched_children() as others:
            masks = prune_with(cell, pruned, layers, batches, chunk=model.chunk, threads=threads)
        wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
        peak = peak_mib() + others.mib
        stored.seek(0)
        before = torch.load(stored, weights_only=True)

    torch.set_num_threads(threads)  # a method may have changed it
    pruned.eval()
    dense = model.load(cell.seed)
    dense.load_state_dict(before)
    kept, total = check_pruned(before, pruned, layers, masks, cell.density, cell.method)
    return {
        **_judge(model, pruned, dense, layers),
        "kept": kept,
        "total": total,
        "left_out": left_out,
        "wall_s": round(wall, 4),
        "cpu_s": round(cpu, 4),
        "peak_mib": round(peak, 1),
        "base_mib": round(base, 1),
        "peak_of_method": own_peak,
    }


def _judge(model: QualityModel, pruned: nn.Module, dense: nn.Module, layers: Any) -> dict[str, Any]:
    with torch.no_grad():
        found = model.evaluate(pruned, dense)
    errors = layer_errors(pruned, dense, layers, model.heldout_set(), model.chunk)
    return {
        "metric": model.metric.name,
        "higher_is_better": model.metric.higher_is_better,
        "percent": model.metric.percent,
        "metrics": {k: v for k, v in found.items() if not k.startswith(_DENSE)},
        "dense": {k.removeprefix(_DENSE): v for k, v in found.items() if k.startswith(_DENSE)},
        "layer_error": errors.total,
        "layer_errors": errors.relative(),
    }


def _warm_up(cell: Cell, threads: int) -> None:
    """The method on a 32-32-8 network. What fails here fails again where it counts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tiny = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 8)).eval()
        batches: list[Any] = [(torch.randn(64, 32), torch.randint(0, 8, (64,)))]
    from optiprune.curvature import find_layers

    with contextlib.suppress(Exception):
        prune_with(cell, tiny, find_layers(tiny), batches, chunk=64, threads=threads)


def _end_with_parent() -> None:
    with contextlib.suppress(OSError, ValueError):
        while os.read(0, 1 << 16):
            pass
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the business of the one who asked
    with contextlib.suppress(OSError):
        # where memory runs out, this process goes, and not the one that keeps the records
        Path("/proc/self/oom_score_adj").write_text("1000")
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 1)
        if not piece:
            return 2
        line += piece
    request = json.loads(line)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        answer = {"status": "ok", **measure(cell_of(request), request["threads"])}
    except MemoryError as e:
        answer = {"status": "failed", "message": f"out of memory: {e}"}
    except Exception as e:
        traceback.print_exc()
        answer = {"status": "failed", "message": f"{type(e).__name__}: {e}"}
    with replacing(request["answer"]) as temporary:
        temporary.write_text(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
