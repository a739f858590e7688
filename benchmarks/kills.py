"""Runs that are killed, and runs on a disk that is full: what is lost, and do the masks differ?

    python -m benchmarks.kills [--kills 200] [--disks 20] [--seed 0]

`optiprune prune` of a transformer with random weights (4 blocks of width 64, 16 windows of 32
tokens), reconstruction with refit, windows and tuning. A process is sent SIGKILL at a moment drawn
evenly over the time that a run takes, and `optiprune resume` goes on, is killed again, and so on
until the run has ended; its masks and values are compared with those of a run that nothing happened
to, and another run begins. A step is lost if it was in the journal before a kill and is not there
afterwards, or if its contents differ. Then runs in a file system that is too small (tmpfs, which
takes root's rights), of another size each time, made larger before the run goes on.
Writes benchmarks/results/kills.md from benchmarks/results/kills.json, in which a part that is not
run now (`--kills 0`, `--disks 0`) stays.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.machine import machine_line
from optiprune.cli import app
from optiprune.durable import Journal

RESULT = Path(__file__).parent / "results" / "kills.json"
PARTS = {"kills": "SIGKILL at random moments", "disks": "Full disks"}
VOCABULARY, WIDTH, HEADS, BLOCKS, LENGTH, WINDOWS = 97, 64, 4, 4, 32, 16
CONFIG = """
threads = 1
workers = 1
[model]
factory = "benchmarks.kills:model"
[data]
calibration = "benchmarks.kills:windows"
[prune]
sparsity = 0.5
objective = "reconstruction"
[window]
epochs = 1
[tune]
epochs = 4
"""


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        q, k, v = (
            t.reshape(n, length, HEADS, -1).transpose(1, 2)
            for t in self.qkv(self.first(x)).chunk(3, -1)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, length, WIDTH))
        return x + self.down(nn.functional.gelu(self.up(self.second(x))))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Transformer().eval()


def windows() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, VOCABULARY, (WINDOWS, LENGTH), generator=generator)]


def run(folder: Path, *arguments: str, seconds: float | None = None) -> int:
    """Exit code of a command in a process of its own, which is killed after so many seconds.

    It is forked from this one, which has imported all that it needs: what is killed is a run, not
    an import.
    """
    child = os.fork()
    if child == 0:
        _be_command(folder, arguments)
    end = None if seconds is None else time.perf_counter() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            break
        if end is not None and time.perf_counter() >= end:
            os.kill(child, signal.SIGKILL)
            end = None
        time.sleep(0.001)
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, 2, -signal.SIGKILL):
        raise RuntimeError(f"exit code {code}: {(folder / 'errors.txt').read_text()}")
    return code


def _be_command(folder: Path, arguments: Sequence[str]) -> NoReturn:
    code = 3
    try:
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open("errors.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        # an exit code comes back, and is not raised, where the caller is not a shell
        code = int(app(list(arguments), standalone_mode=False) or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def steps(folder: Path) -> dict[str, str]:
    """Steps on disk: key and digest, every one of them read."""
    unfinished = folder / "out" / "unfinished"
    if not (unfinished / "journal.jsonl").exists():
        return {}
    copy = folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(unfinished, copy)  # opening a journal takes half a line away
    journal = Journal(copy)
    for entry in journal.entries:
        journal.get(entry.key)
    return {e.key: e.digest for e in journal.entries}


def lost(before: dict[str, str], after: dict[str, str]) -> int:
    """Steps that were there and are not, but for the tuning, whose passes replace one another."""
    return sum(after.get(k) != v for k, v in before.items() if k != "tuning")


def differs(folder: Path, whole: dict[str, dict[str, Tensor]]) -> bool:
    for name, tensors in whole.items():
        found = load_file(folder / "out" / name)
        if any(not torch.equal(found[k], t) for k, t in tensors.items()):
            return True
    return False


def going_on(folder: Path) -> bool:
    """Whether there is a run that has not ended."""
    return (folder / "out" / "unfinished" / "config.toml").exists()


def begin(folder: Path) -> list[str]:
    """The command of a run, or of one that goes on."""
    go_on = ["resume", "out"]
    return go_on if going_on(folder) else ["prune", "run.toml", "--out", "out", "--force"]


def killed(
    folder: Path, kills: int, seconds: float, whole: dict[str, dict[str, Tensor]], seed: int
) -> dict[str, int]:
    rng = np.random.default_rng(seed)
    counts = {"kills": 0, "runs that ended": 0, "steps lost": 0, "runs with other masks": 0}
    before: dict[str, str] = {}
    while counts["kills"] < kills:
        code = run(folder, *begin(folder), seconds=float(rng.uniform(0, seconds)))
        counts["kills"] += code != 0
        # killed or not, a run whose journal is gone has ended: its results must lie there
        if code == 0 or (before and not going_on(folder)):
            counts["runs that ended"] += 1
            counts["runs with other masks"] += differs(folder, whole)
            shutil.rmtree(folder / "out")  # what lies there next is the next run's
            before = {}
            continue
        after = steps(folder)
        counts["steps lost"] += lost(before, after)
        before = after
        print(counts, len(after), "steps", flush=True)
    assert run(folder, *begin(folder)) == 0
    counts["runs that ended"] += 1
    counts["runs with other masks"] += differs(folder, whole)
    return counts


def full(folder: Path, disks: int, whole: dict[str, dict[str, Tensor]]) -> dict[str, int]:
    counts = {"disks": 0, "stops": 0, "steps lost": 0, "runs with other masks": 0}
    shutil.rmtree(folder / "out", ignore_errors=True)
    (folder / "out").mkdir()
    for i in range(disks):
        kib = 40 + i * 2400 // disks
        mount(folder / "out", kib)
        try:
            stopped = run(folder, *begin(folder)) == 2
            before = steps(folder)
            mount(folder / "out", kib + kib // 4, again=True)  # the run goes on a little
            more = run(folder, *begin(folder)) == 2
            after = steps(folder)
            mount(folder / "out", 1 << 20, again=True)
            counts["disks"] += 1
            counts["stops"] += stopped + more
            counts["steps lost"] += lost(before, after) if more else 0
            if more:
                assert run(folder, *begin(folder)) == 0
            counts["runs with other masks"] += differs(folder, whole)
            print(counts, kib, "KiB", len(before), len(after), "steps", flush=True)
        finally:
            subprocess.run(["umount", str(folder / "out")], check=True)
    return counts


def mount(folder: Path, kib: int, *, again: bool = False) -> None:
    options = f"{'remount,' if again else ''}size={kib}k"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


def keep(part: str, counts: dict[str, int], seconds: float) -> None:
    """Write what was counted, at once."""
    found = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    found[part] = {"counts": counts, "seconds": seconds, "machine": machine_line()}
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    lines = ["# Runs that are killed, and full disks", "", "`python -m benchmarks.kills`", ""]
    for name, title in PARTS.items():
        if name in found:
            row = found[name]
            lines += [f"## {title}", "", f"One run takes {row['seconds']:.1f} s.", ""]
            lines += ["| what | count |", "|---|---:|"]
            lines += [f"| {k} | {v} |" for k, v in row["counts"].items()]
            lines += ["", row["machine"]]
    RESULT.with_suffix(".md").write_text("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--disks", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "run.toml").write_text(CONFIG)
        run(folder, *begin(folder))  # kernels are compiled
        start = time.perf_counter()
        assert run(folder, *begin(folder)) == 0
        seconds = time.perf_counter() - start
        names = ("masks.safetensors", "model.safetensors")
        whole = {n: load_file(folder / "out" / n) for n in names}
        shutil.rmtree(folder / "out")
        if options.kills:
            keep("kills", killed(folder, options.kills, seconds, whole, options.seed), seconds)
        if options.disks:
            keep("disks", full(folder, options.disks, whole), seconds)


if __name__ == "__main__":
    main()
