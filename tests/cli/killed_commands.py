"""Run commands in forks of this process and kill each while it writes; no test by itself.

``python killed_commands.py FOLDER SEED KILLS``. What a kill may harm is a file that is open for
writing, for microseconds: kills at random times would hardly ever meet one. So each fork counts the
files that it opens for writing, and kills itself (SIGKILL) a few function calls after one of them.
After each kill every file that is there must be whole. Prints a line of JSON: the kills by command.
"""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optiprune.bench.records import read_best_known, read_journal
from optiprune.bench.records.results import COLUMNS
from optiprune.cli import app
from optiprune.problems import layer_problem, read_problem, write_problem

# every way of writing results
COMMANDS = {
    "solve": "solve {folder}/problem.npz --solver tabu --time 0.01 --out {run}/solution.json",
    "export": "bench export --suite generators --sizes 12 --count 1 --match layer* "
    "--format npz,bqp,lp,mps,json --out {run}/set",
    "bench": "bench solvers --suite generators --sizes 12 --count 1 --solvers greedy,tabu "
    "--budget 0.005 --seeds 1 --no-isolate --no-plots --out {run}/bench",
    "report": "bench report {folder}/whole-bench/bench",
}
# calls of functions between opening a file and the kill
CALLS = (1, 2, 3, 4, 6, 8, 12, 20, 40, 100, 400)


class Writes:
    """Counts files opened for writing in a folder; at number ``at`` it prepares the kill."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count, self.at, self.calls = str(folder), 0, -1, 0
        sys.addaudithook(self.hear)  # for good: there is no way back

    def hear(self, event: str, args: tuple[Any, ...]) -> None:
        if event != "open" or not str(args[0]).startswith(self.folder):
            return
        mode, flags = args[1], args[2]
        if (mode and set(mode) & set("wxa+")) or flags & (os.O_WRONLY | os.O_RDWR):
            self.count += 1
            if self.count == self.at:
                sys.setprofile(self.call)

    def call(self, *_: Any) -> None:
        self.calls -= 1
        if self.calls < 0:
            os.kill(os.getpid(), signal.SIGKILL)


def killed(work: Callable[[], None], writes: Writes, at: int, calls: int) -> bool:
    """Run in a fork that kills itself; False if it came to its end before."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            writes.count, writes.at, writes.calls = 0, at, calls
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("a command failed by itself")
    return os.WIFSIGNALED(status)


def check(folder: Path) -> None:
    """Raise unless every file is all that its writer writes."""
    for path in folder.rglob("*"):
        if path.is_dir() or path.name[0] == ".":
            continue  # a dot in front: what the killed writer had not finished
        text = path.read_bytes()
        if path.name == "journal.jsonl":
            read_journal(path.parent)  # which leaves out a line without its end
        elif path.name == "best-known.json":
            assert read_best_known(path), path
        elif path.suffix == ".json":
            assert json.loads(text), path
            assert text.endswith(b"\n"), path
        elif path.suffix == ".csv":
            assert text.endswith(b"\n"), path
            rows = list(csv.DictReader(text.decode().splitlines()))
            assert rows, path
            assert None not in rows[-1].values(), path
            assert path.name != "results.csv" or set(rows[0]) == set(COLUMNS), path
        elif path.suffix == ".png":
            assert text[-8:-4] == b"IEND", path
        elif path.suffix == ".svg":
            assert text.endswith(b"</svg>\n"), path
        else:
            assert read_problem(path).n in (12, 20), path


def main() -> None:
    folder, rng, kills = Path(sys.argv[1]), random.Random(int(sys.argv[2])), int(sys.argv[3])
    told = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def run(name: str, place: Path) -> None:
        place.mkdir(exist_ok=True)
        words = [part.format(folder=folder, run=place) for part in COMMANDS[name].split()]
        code = app(words, standalone_mode=False)
        if code:
            raise RuntimeError(f"{name} ended with exit code {code}")

    write_problem(layer_problem(20, 10), folder / "problem.npz")
    writes = Writes(folder)
    opened = {}
    for name in COMMANDS:  # once as a whole: imports, compiles, counts
        before = writes.count
        run(name, folder / f"whole-{name}")
        opened[name] = writes.count - before
    check(folder)
    done: dict[str, int] = {}
    for name in COMMANDS:
        done[name] = 0
        for number in range(kills if name != "report" else kills // 6):
            # a bench that is begun again goes on in what the last one left
            place = folder / f"{name}-{number - number % 3 if name == 'bench' else number}"
            at, calls = rng.randint(1, opened[name]), rng.choice(CALLS)
            done[name] += killed(lambda n=name, p=place: run(n, p), writes, at, calls)
            check(folder / "whole-bench" if name == "report" else place)
    os.write(told, json.dumps(done).encode())


if __name__ == "__main__":
    main()
