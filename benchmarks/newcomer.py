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
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.machine import machine_line

ROOT = Path(__file__).resolve().parents[1]
RESULT = Path(__file__).parent / "results" / "newcomer.md"
# what a block is, and what a comment says that the reader has already
BLOCK = re.compile(
    r"^```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<code>.*?)^```$"
    r"|^<!-- setup\n(?P<setup>.*?)-->$",
    re.DOTALL | re.MULTILINE,
)
TEN_LINES = "## Ten lines of Python"


def script(text: str, folder: Path) -> Iterator[tuple[str, str]]:
    """('python' or 'bash', code) of what a page says to run, in order; files that it shows are
    written into ``folder``."""
    for block in BLOCK.finditer(text):
        if block["setup"]:
            yield "python", block["setup"]
        elif block["title"]:
            (folder / block["title"]).write_text(block["code"], encoding="utf-8")
        elif block["language"] in ("python", "bash"):
            yield block["language"], block["code"]


def follow(text: str, folder: Path, environment: dict[str, str], log: Path) -> None:
    """Run a page: commands in a shell, its Python as one file at the end of every stretch."""
    folder.mkdir()
    for file in (ROOT / "tests" / "docs" / "stage").iterdir():  # the reader's own trained model
        (folder / file.name).write_bytes(file.read_bytes())
    python = ""
    for language, code in script(text, folder):
        if language == "python":
            python += f"{code}\n"
        else:
            call(["bash", "-e", "-c", code], folder, environment, log)
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


def texts() -> dict[str, str]:
    """What README says of Python, and the two pages that it leads to."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    how_to = ROOT / "docs" / "how-to"
    return {
        "ten lines of Python (README.md)": readme[readme.index(TEN_LINES) :].split("\n## ", 1)[0],
        "own model (docs/how-to/own-model.md)": (how_to / "own-model.md").read_text("utf-8"),
        "own solver (docs/how-to/own-solver.md)": (how_to / "own-solver.md").read_text("utf-8"),
    }


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
        made, log = partial(call, folder=clone, environment=environment), folder / "make.log"
        parts = {
            "`git clone`": partial(
                call,
                ["git", "clone", "--quiet", ROOT.as_uri(), str(clone)],
                folder,
                environment,
                log,
            ),
            "`make demo` (makes the environment, trains, prunes)": partial(
                made, ["make", "demo"], log=log
            ),
            "`make demo`, once more": partial(made, ["make", "demo"], log=log),
        }
        for name, text in texts().items():
            at = name.partition(" (")[0].replace(" ", "-")
            parts[name] = partial(follow, text, folder / at, inside, folder / f"{at}.log")
        parts["`make test` (lint, types, documentation, tests)"] = partial(
            made, ["make", "test"], log=log
        )
        rows = []
        for name, part in parts.items():
            began = time.perf_counter()
            part()
            rows.append(f"| {name} | {time.perf_counter() - began:.0f} |")
            print(rows[-1], flush=True)
        tests = (folder / "make.log").read_text(encoding="utf-8").splitlines()[-1].strip("= ")
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
