"""The path of a newcomer on a fresh clone: two commands, then a model and a solver of their own.

    python -m benchmarks.newcomer [--folder DIR]

Clones the last commit into an empty folder and does there what README says, in its order, each part
timed: `make demo`, which sets everything up; the code of docs/how-to/own-model.md and of
docs/how-to/own-solver.md, copied block by block into files and a shell as a reader would, with the
environment that `make demo` made; README's ten lines; `make test`. The time of reading and typing
is not in it. pip may find packages in a cache of the machine. The output of every part is kept
beside the clone. Writes benchmarks/results/newcomer.md; ends with an error if a part fails.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks.machine import machine_line
from tests.docs.markdown_blocks import Block, blocks_of

ROOT = Path(__file__).resolve().parents[1]
RESULT = Path(__file__).parent / "results" / "newcomer.md"
PAGES = {
    "ten lines of Python (README.md)": ROOT / "README.md",
    "own model (docs/how-to/own-model.md)": ROOT / "docs" / "how-to" / "own-model.md",
    "own solver (docs/how-to/own-solver.md)": ROOT / "docs" / "how-to" / "own-solver.md",
}
# of README, a section alone
SECTION = "## Ten lines of Python"


def blocks(page: Path) -> list[Block]:
    """What a page says to run and to write down, in order."""
    found = [block for block in blocks_of(page) if block.not_run is None]
    lines = page.read_text(encoding="utf-8").splitlines()
    if SECTION not in lines:
        return found
    first = lines.index(SECTION)
    last = next(i for i in range(first + 1, len(lines)) if lines[i].startswith("## "))
    return [block for block in found if first < block.line <= last]


def follow(page: Path, folder: Path, environment: dict[str, str]) -> None:
    """Run a page: commands in a shell as they come, then its Python as one file."""
    log = folder.with_suffix(".log")
    shutil.copytree(ROOT / "tests" / "docs" / "stage", folder)  # the reader's own trained model
    python = ""
    for block in blocks(page):
        if block.title:
            (folder / block.title).write_text(block.code, encoding="utf-8")
        elif block.language == "python":
            python += f"{block.code}\n"
        elif block.language == "bash":
            call(["bash", "-e", "-c", block.code], folder, environment, log)
    (folder / "page.py").write_text(python, encoding="utf-8")
    call(["python", "page.py"], folder, environment, log)


def call(command: list[str], folder: Path, environment: dict[str, str], log: Path) -> None:
    with log.open("a", encoding="utf-8") as file:
        status = subprocess.run(
            command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False
        ).returncode
    if status:
        print("".join(log.read_text(encoding="utf-8").splitlines(keepends=True)[-30:]))
        sys.exit(f"{' '.join(command)!r} ended with {status}; all of its output: {log}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="Where the clone is made, and stays.")
    args = parser.parse_args()
    machine = machine_line()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        clone = folder / "optiprune"
        # nothing of this environment: no path, no packages
        keep = ("HOME", "LANG", "PATH", "PIP_", "http_proxy", "https_proxy", "TMPDIR")
        environment = {k: v for k, v in os.environ.items() if k.startswith(keep)}
        inside = environment | {"PATH": f"{clone / '.venv' / 'bin'}:{environment['PATH']}"}
        log = folder / "make.log"
        demo = partial(call, ["make", "demo"], clone, environment, log)
        parts = {
            "`git clone`": partial(
                call,
                ["git", "clone", "--quiet", ROOT.as_uri(), str(clone)],
                folder,
                environment,
                log,
            ),
            "`make demo` (makes the environment, trains, prunes)": demo,
            "`make demo`, once more": demo,
        }
        for name, page in PAGES.items():
            place = folder / name.partition(" (")[0].replace(" ", "-")
            parts[name] = partial(follow, page, place, inside)
        parts["`make test` (lint, types, documentation, tests)"] = partial(
            call, ["make", "test"], clone, environment, log
        )
        rows = []
        for name, part in parts.items():
            began = time.perf_counter()
            part()
            rows.append(f"| {name} | {time.perf_counter() - began:.0f} |")
            print(rows[-1], flush=True)
        tests = log.read_text(encoding="utf-8").splitlines()[-1].strip("= ")
    lines = [
        "# A newcomer's path",
        "",
        "`python -m benchmarks.newcomer`: a fresh clone in an empty folder, and what README says, "
        "in its order. Reading and typing are not in it.",
        "",
        "| part | seconds |",
        "|---|---:|",
        *rows,
        "",
        f"The tests: {tests}",
        "",
        machine,
    ]
    RESULT.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
