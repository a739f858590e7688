"""Broken files that optiprune wrote itself: masks, journals, plans, configs, checkpoints, results.

    python -m benchmarks.fuzz_state [--count 20000] [--seed 0] [--out FILE]

The same changes as in `benchmarks.fuzz_readers`, and *sealed* ones: what a checksum covers is
changed and the checksum made anew, as somebody would who means harm. Reading may give a result or
raise the error that is documented for that file. Any other exception, a warning, more than
`SECONDS`, or more memory than `benchmarks.fuzz_readers` allows is a failure, and the exit status
is 1.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import json
import random
import shutil
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save, save_file

from benchmarks.fuzz_readers import limits, spoiled
from benchmarks.machine import describe
from optiprune.bench.errors import BenchError
from optiprune.bench.instances.fashion_mnist import read_idx
from optiprune.bench.records import read_journal
from optiprune.cli.callables import check_solver
from optiprune.cli.errors import InputError
from optiprune.cli.model_inputs import ModelInputs
from optiprune.cli.run_config import ModelSection, RunConfig, load_file, load_run_config
from optiprune.cli.train_config import TrainRunConfig
from optiprune.config import ConfigError
from optiprune.durable import Journal, JournalError
from optiprune.engine.steps import JournalSteps
from optiprune.masks import MaskError, MaskSet
from optiprune.masks.file import header_digest
from optiprune.solvers import SolverError
from optiprune.structure import Plan
from optiprune.structure.plan import PlanError
from optiprune.training.errors import TrainingError
from optiprune.training.loops.checkpoint import load_checkpoint, save_checkpoint

__all__ = ["KINDS", "Kind", "examine", "spoiled_state"]

RESULT = Path(__file__).parent / "results" / "fuzz_state.txt"
SECONDS = 5.0
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@dataclass(frozen=True, slots=True)
class Kind:
    """A file that is read.

    Attributes
    ----------
    write : makes a sound one in a folder, with what belongs to it
    file : its name there
    read : reads what lies in the folder, and uses it
    errors : what reading may raise
    seal : changes what a checksum covers, and the checksum; None if there is none
    """

    write: Callable[[Path], None]
    file: str
    read: Callable[[Path], object]
    errors: tuple[type[Exception], ...]
    seal: Callable[[bytes, random.Random], bytes] | None = None


def examine(kind: Kind, folder: Path) -> str:
    """ "accepted", "refused", or what went wrong."""
    began = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            kind.read(folder)
        result = "accepted"
    except kind.errors as e:
        result = "refused" if len(str(e)) < 4000 else f"a message of {len(str(e))} characters"
    except Exception as e:
        result = f"{type(e).__name__}: {str(e)[:200]}"
    took = time.perf_counter() - began
    return f"{took:.1f} s" if took > SECONDS else result


def spoiled_state(kind: Kind, data: bytes, rng: random.Random) -> bytes:
    """The file with changes, sealed in half of the cases where it can be."""
    if kind.seal is not None and rng.random() < 0.5:
        return kind.seal(data, rng)
    return spoiled(data, rng, [data])


# ---- what each of them is


def _masks() -> MaskSet:
    draw = torch.Generator().manual_seed(0)
    masks = {n: torch.rand(4, 9, generator=draw) < 0.4 for n in ("a.weight", "b.weight")}
    fitted = {"a.weight": torch.randn(4, 9, generator=draw) * masks["a.weight"]}
    return MaskSet(masks).with_fitted(fitted).with_hashes(dict.fromkeys(masks, "0" * 64))


def _write_masks(folder: Path) -> None:
    _masks().save(folder / "m.safetensors", config={"seed": 0}, metadata={"note": "x"})


def _seal_masks(data: bytes, rng: random.Random) -> bytes:
    size = int.from_bytes(data[:8], "little")
    text = json.loads(data[8 : 8 + size])["__metadata__"]
    key = rng.choice(("parameters", "parameters", "parameters", "config", "format_version"))
    text[key] = _changed(text[key], rng)
    text["sha256"] = header_digest(text)
    return save(load(data), metadata=text)


def _changed(text: str, rng: random.Random) -> str:
    """JSON with one value replaced, or a text with changes."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if value is None or rng.random() < 0.3:
        return spoiled(text.encode(), rng, [text.encode()]).decode("utf-8", "replace")
    return json.dumps(_with_other(value, rng))


_ODD = (None, True, -1, 0, 1.5, 2**40, 2**70, 10**4200, float("nan"), "", "../../x", "a" * 9000)
_ODD_TABLES: tuple[Any, ...] = ([], {}, [0], [2**31, 2**31, 0], {"n": 1}, [[[]]], ["\ud800"])


def _with_other(value: Any, rng: random.Random) -> Any:
    """A copy with one part somewhere in it replaced or taken away."""
    if isinstance(value, dict) and value and rng.random() < 0.95:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: _with_other(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        if rng.random() < 0.1:
            return value[:at] + value[at + 1 :] * 2
        return [*value[:at], _with_other(value[at], rng), *value[at + 1 :]]
    return rng.choice((*_ODD, *_ODD_TABLES))


def _write_steps(folder: Path) -> None:
    steps = JournalSteps(Journal(folder))
    draw = torch.Generator().manual_seed(0)
    for i, n in enumerate((4, 2000, 3, 1500)):
        steps.put(f"layer {i}", {"w": torch.randn(n, generator=draw)}, {"error": 0.5, "n": i})


def _read_steps(folder: Path) -> object:
    return _all_steps(folder, repair=False)


def _repair_steps(folder: Path) -> object:
    return _all_steps(folder, repair=True)


def _all_steps(folder: Path, *, repair: bool) -> object:
    journal = Journal(folder, repair=repair)
    steps = JournalSteps(journal)
    found = [steps.get(entry.key) for entry in journal.entries]
    steps.put("next", {}, {})
    assert steps.get("next") is not None
    return found


def _seal_journal(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines()
    at = rng.randrange(len(lines))
    table = json.loads(lines[at])
    del table["check"]
    if "content" in table and rng.random() < 0.5:
        content = spoiled(base64.b64decode(table["content"]), rng, [data])
        table["content"] = base64.b64encode(content).decode()
        table["sha256"] = hashlib.sha256(content).hexdigest()
    else:
        table = _with_other(table, rng)
    check = hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()
    if isinstance(table, dict):
        table["check"] = check
    lines[at] = json.dumps(table).encode()
    return b"\n".join(lines) + b"\n"


_STEP = "steps/000001-layer-1.bin"


def _write_plan(folder: Path) -> None:
    Plan({"conv1": (0, 3), "fc": (1,)}, {"conv1": 8, "fc": 4}).save(folder / "plan.json")


def _write_checkpoint(folder: Path) -> None:
    state = {"weights": {"w": torch.ones(5)}, "epoch": 3, "losses": [1.0, 0.5], "name": "x"}
    save_checkpoint(folder / "c.pt", {"seed": 0}, state)


def _write_idx(folder: Path) -> None:
    raw = struct.pack(">HBBII", 0, 8, 2, 4, 5) + bytes(range(20))
    (folder / "x.gz").write_bytes(gzip.compress(raw, mtime=0))


def _seal_idx(data: bytes, rng: random.Random) -> bytes:
    raw = spoiled(gzip.decompress(data), rng, [data])
    if rng.random() < 0.1:
        raw += bytes(2_000_000_000 // 100)
    return gzip.compress(raw, 1, mtime=0)


def _write_bench_journal(folder: Path) -> None:
    lines = [{"type": "settings", "seed": 0}, {"type": "note", "text": "x", "n": [1, 2.5]}]
    (folder / "journal.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))


def _network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))


def _write_weights(folder: Path) -> None:
    save_file(_network().state_dict(), folder / "w.safetensors")


def _read_weights(folder: Path) -> object:
    section = ModelSection(factory="a.py:f", weights=str(folder / "w.safetensors"))
    return ModelInputs(section, _network).make()


def _copied(name: str) -> Callable[[Path], None]:
    return lambda folder: shutil.copyfile(EXAMPLES / name, folder / name) and None


def _read_run(folder: Path) -> object:
    run: RunConfig = load_run_config(folder / "run.toml")
    check_solver(run)
    return run.engine_config()


KINDS: dict[str, Kind] = {
    "masks": Kind(
        _write_masks,
        "m.safetensors",
        lambda f: MaskSet.load(f / "m.safetensors").density(),
        (MaskError,),
        _seal_masks,
    ),
    "journal": Kind(_write_steps, "journal.jsonl", _read_steps, (JournalError,), _seal_journal),
    "journal, repaired": Kind(
        _write_steps, "journal.jsonl", _repair_steps, (JournalError,), _seal_journal
    ),
    "step": Kind(_write_steps, _STEP, _read_steps, (JournalError,)),
    "step, repaired": Kind(_write_steps, _STEP, _repair_steps, ()),
    "run file": Kind(_copied("run.toml"), "run.toml", _read_run, (ConfigError, SolverError)),
    "training file": Kind(
        _copied("train.toml"),
        "train.toml",
        lambda f: load_file(TrainRunConfig, f / "train.toml").training(),
        (ConfigError,),
    ),
    "plan": Kind(
        _write_plan,
        "plan.json",
        lambda f: Plan.load(f / "plan.json").to_json(),
        (PlanError,),
        lambda data, rng: _changed(data.decode(), rng).encode("utf-8", "replace"),
    ),
    "checkpoint": Kind(
        _write_checkpoint,
        "c.pt",
        lambda f: load_checkpoint(f / "c.pt", torch.device("cpu")),
        (TrainingError,),
    ),
    "weights": Kind(_write_weights, "w.safetensors", _read_weights, (InputError,)),
    "idx": Kind(_write_idx, "x.gz", lambda f: read_idx(f / "x.gz"), (ValueError,), _seal_idx),
    "bench journal": Kind(_write_bench_journal, "journal.jsonl", read_journal, (BenchError,)),
}


def fuzz(count: int, seed: int, keep: Path) -> tuple[Counter[tuple[str, str]], list[str]]:
    """(how many of each kind and outcome, failures)."""
    tally: Counter[tuple[str, str]] = Counter()
    failures: list[str] = []
    with limits(), tempfile.TemporaryDirectory() as place:
        for name, kind in KINDS.items():
            (Path(place) / name).mkdir()
            kind.write(Path(place) / name)
        for number in range(count):
            name = list(KINDS)[number % len(KINDS)]
            kind, rng = KINDS[name], random.Random(f"{seed}/{number}")
            with tempfile.TemporaryDirectory() as folder_name:
                folder = Path(folder_name)
                shutil.copytree(Path(place) / name, folder, dirs_exist_ok=True)
                data = spoiled_state(kind, (folder / kind.file).read_bytes(), rng)
                (folder / kind.file).write_bytes(data)
                result = examine(kind, folder)
            good = result in ("accepted", "refused")
            tally[name, result if good else "FAILED"] += 1
            if not good:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{seed}-{number}.{name}").write_bytes(data)
                failures.append(f"{name}, input {number}: {result}")
                print(failures[-1], flush=True)
    return tally, failures


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"), help="inputs that failed")
    parser.add_argument("--out", type=Path, help=f"such as {RESULT.name}")
    args = parser.parse_args()
    began = time.perf_counter()
    tally, failures = fuzz(args.count, args.seed, args.keep)
    lines = [
        f"{args.count} spoiled files, seed {args.seed}, {time.perf_counter() - began:.0f} s",
        "",
        f"{'file':<20}{'files':>8}{'accepted':>10}{'refused':>10}{'FAILED':>8}",
    ]
    for name in KINDS:
        counts = [tally[name, o] for o in ("accepted", "refused", "FAILED")]
        lines.append(f"{name:<20}{sum(counts):>8}{counts[0]:>10}{counts[1]:>10}{counts[2]:>8}")
    lines += ["", *(f"{k}: {v}" for k, v in describe().items()), *failures[:50], ""]
    print("\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
