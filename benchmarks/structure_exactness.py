"""Whether smaller models compute what the masked ones compute, on many kinds of networks.

    python -m benchmarks.structure_exactness [--networks vit,bert] [--quick]

For every network of benchmarks.models.zoo: its groups, a random plan that takes about a third of
each of them, the smaller model; its difference from the masked model on new inputs, its predicted
and true size, the time of both and the difference of its ONNX export. Each network runs in a
process of its own. Rows are kept in benchmarks/results/structure_exactness.json, so that some
networks can be measured again alone; the table is benchmarks/results/structure_exactness.md. Ends
with an error if a smaller model was returned that is not the masked one. Needs transformers, onnx,
onnxscript and onnxruntime.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.exactness.measured import WRONG, Row, measure
from benchmarks.exactness.table import page
from benchmarks.models.zoo import ZOO

RESULTS = Path(__file__).parent / "results"
ROWS = RESULTS / "structure_exactness.json"
PAGE = RESULTS / "structure_exactness.md"


def apart(name: str, quick: bool, timeout: float) -> Row:
    """`measure` in a process of its own: memory comes back, and a crash is a row."""
    command = [sys.executable, "-m", "benchmarks.structure_exactness", "--one", name]
    try:
        done = subprocess.run(
            [*command, *(["--quick"] if quick else [])],
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return Row(name, failed=f"took more than {timeout:.0f} s")
    for line in done.stdout.splitlines():
        if line.startswith('{"name"'):
            return Row(**json.loads(line))
    tail = [x for x in done.stderr.splitlines() if x.strip()][-1:]
    return Row(name, failed=" ".join(tail)[:200].replace("|", "/"))


def wrong(row: Row) -> bool:
    return row.error is not None and not row.error <= WRONG


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", help="names with commas; all without")
    parser.add_argument("--quick", action="store_true", help="no ONNX, few repeats")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for a network")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        torch.set_num_threads(1)
        row = measure(args.one, repeats=3 if args.quick else 9, onnx=not args.quick)
        print(json.dumps(asdict(row)))
        return
    names = args.networks.split(",") if args.networks else list(ZOO)
    unknown = [n for n in names if n not in ZOO]
    if unknown:
        parser.error(f"no network {unknown[0]!r}; there are: {', '.join(ZOO)}")
    rows = {r["name"]: Row(**r) for r in json.loads(ROWS.read_text())} if ROWS.exists() else {}
    for name in names:
        row = rows[name] = apart(name, args.quick, args.timeout)
        told = row.failed or f"{row.groups} groups, error {row.error}, {', '.join(row.notes)}"
        print(f"{name}: {told}", flush=True)
        ordered = [rows[n] for n in ZOO if n in rows]
        ROWS.write_text(json.dumps([asdict(r) for r in ordered], indent=1) + "\n")
        PAGE.write_text(page(ordered))
    bad = [n for n in names if wrong(rows[n])]
    if bad:
        sys.exit(f"smaller models that are not the masked ones: {', '.join(bad)}")


if __name__ == "__main__":
    main()
