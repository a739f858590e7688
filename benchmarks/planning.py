"""What a plan says of memory and time, and what the run then takes.

    python -m benchmarks.planning [--models lenet-300-100 cnn-32-64-fc128 resnet20 transformer]

Default settings at a density of 10 %, 4000 calibration images (the transformer of benchmarks.kills:
its windows), one thread, each model in a process of its own. Memory is what the process holds at
its peak beyond what it held before. Writes benchmarks/results/planning.md.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import kills
from benchmarks.machine import machine_line
from benchmarks.models import data, load_trained
from benchmarks.models.networks import takes_flat_input
from benchmarks.quality.memory import peak_mib, reset_peak, resident_mib
from optiprune import optimize_masks, plan_masks

RESULT = Path(__file__).parent / "results" / "planning.md"
MODELS = ("lenet-300-100", "cnn-32-64-fc128", "resnet20", "transformer")
CONFIG = {"threads": 1, "workers": 1, "prune": {"sparsity": 0.9}}


def measure(name: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    if name == "transformer":
        model, inputs = kills.model(), kills.windows()
    else:
        model = copy.deepcopy(load_trained(name, 0)).eval()
        inputs = [data("train", flat=takes_flat_input(name))[0][:4000]]
    plan = plan_masks(model, inputs, config=CONFIG)
    before = resident_mib()
    reset_peak()
    start = time.perf_counter()
    optimize_masks(model, inputs, config=CONFIG)
    return {
        "model": name,
        "probe": plan.probe_seconds,
        "seconds": [plan.total_seconds, time.perf_counter() - start],
        "mib": [plan.needed / 2**20, peak_mib() - before],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--one", help="measure this model here and print JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    rows = []
    for name in options.models:
        command = [sys.executable, "-m", "benchmarks.planning", "--one", name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    lines = ["# Plans against runs\n", machine_line() + "\n"]
    lines += [
        "| model | planning, s | plan, s | run, s | share | plan, MiB | run, MiB | share |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for r in rows:
        (s, real), (m, peak) = r["seconds"], r["mib"]
        lines.append(
            f"| {r['model']} | {r['probe']:.1f} | {s:.1f} | {real:.1f} | {s / real:.2f} | {m:.0f} "
            f"| {peak:.0f} | {m / peak:.2f} |"
        )
    RESULT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
