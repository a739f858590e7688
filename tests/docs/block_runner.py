"""Runs the blocks of one page, in order, in a folder of their own.

What is done with a block goes by its language. ``python`` runs, in one namespace a page; ``bash``
is taken apart: commands of optiprune run, of others it is checked that what they name exists;
``toml`` and ``json`` go through the readers that would read them. A block with a title is also
written to the file of that name, where later blocks find it.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import typer
from markdown_blocks import Block
from shell_commands import Command, commands_of
from typer.testing import CliRunner

from optiprune.cli import app

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["BlockError", "PageRunner"]

ROOT = Path(__file__).resolve().parents[2]


class BlockError(AssertionError):
    """A block that does not do what its page says; the message has page and line."""


class PageRunner:
    """The folder and the namespace of one page.

    Parameters
    ----------
    page : path that messages name
    module : whose namespace Python blocks share
    """

    def __init__(self, page: Path, module: ModuleType) -> None:
        self._page = page
        self._module = module
        self._by_language: dict[str, Callable[[Block], None]] = {
            "python": self._python,
            "bash": self._bash,
            "sh": self._bash,
            "toml": self._toml,
            "json": lambda block: json.loads(block.code),
            "text": lambda block: None,
        }

    def run(self, block: Block) -> None:
        """Raises `BlockError`, or what the code of the block raises."""
        where = f"{self._page}:{block.line}"
        if block.language not in self._by_language:
            raise BlockError(f"{where}: no way to check a block of language {block.language!r}")
        if block.title:
            path = Path(block.title)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.code, encoding="utf-8")
        try:
            self._by_language[block.language](block)
        except BlockError as e:
            raise BlockError(f"{where}: {e}") from e.__cause__

    def _python(self, block: Block) -> None:
        code = "\n" * (block.line - 1) + block.code  # so that a traceback has the page's lines
        compiled = compile(code, str(self._page), "exec", dont_inherit=True)
        if block.not_run is None:
            exec(compiled, self._module.__dict__)

    def _bash(self, block: Block) -> None:
        for command in commands_of(block.code):
            if command.words:
                self._command(command, run=block.not_run is None)

    def _command(self, command: Command, *, run: bool) -> None:
        program, *arguments = command.words
        if program == "optiprune":
            _parse(arguments)
            if run:
                self._optiprune(arguments, command.target)
        elif program == "make":
            _check_targets(arguments)
        elif program == "pip" and arguments[:1] == ["install"]:
            _check_extras(arguments)
        elif program == "python" and arguments[:1] == ["-m"]:
            _check_module(arguments[1], arguments[2:])
        elif run:
            raise BlockError(f"no way to check {program!r}; if it cannot run here, say 'not run'")

    def _optiprune(self, arguments: list[str], target: str) -> None:
        done = CliRunner().invoke(app, arguments)
        if done.exit_code != 0:
            said = f"{done.output}\n{done.stderr}"[-2000:]
            raise BlockError(
                f"optiprune {' '.join(arguments)} ended with {done.exit_code}: {said}"
            ) from done.exception
        if target:
            Path(target).write_text(done.stdout, encoding="utf-8")

    def _toml(self, block: Block) -> None:
        check_table(tomllib.loads(block.code))


def check_table(table: dict[str, object]) -> None:
    """A whole file, or a part of one, through the reader that it is for."""
    from optiprune.cli.callables import check_solver
    from optiprune.cli.pretrained_config import PretrainedRunConfig
    from optiprune.cli.run_config import OutputSection, RunConfig
    from optiprune.cli.train_config import TrainRunConfig
    from optiprune.config import Config, validate

    if "quality" in table:
        _check_quality(table)
    elif "project" in table:
        groups = table["project"]["entry-points"]  # type: ignore[index]
        assert set(groups) == {"optiprune.solvers"}
    elif {"choice", "train", "torque"} & set(table):
        validate(TrainRunConfig, table)
    elif set(table) == {"output"}:
        validate(OutputSection, table["output"])  # type: ignore[arg-type]
    elif {"pretrained", "text"} & set(table):
        check_solver(validate(PretrainedRunConfig, table))
    elif {"model", "data"} & set(table):
        check_solver(validate(RunConfig, table))
    else:
        check_solver(Config.from_table(table))  # type: ignore[arg-type]


def _check_quality(table: dict[str, object]) -> None:
    from benchmarks.quality.settings import read_settings

    path = Path("quality-of-a-page.toml")
    path.write_text(_as_toml_file(table))
    read_settings(path, {})


def _as_toml_file(table: dict[str, object]) -> str:
    from optiprune.cli.toml_text import toml_text

    return toml_text(table)


def _parse(arguments: list[str]) -> None:
    """The command, its options and the types of their values; nothing is run."""
    command = typer.main.get_command(app)
    rest, parent = list(arguments), None
    try:
        while hasattr(command, "commands"):
            context = command.make_context("optiprune", rest[:1] or ["--help"], parent=parent)
            if rest[0] not in command.commands:
                raise BlockError(f"optiprune has no command {rest[0]!r}")
            command, rest, parent = command.commands[rest[0]], rest[1:], context
        command.make_context("optiprune", rest, parent=parent)
    except BlockError:
        raise
    except Exception as e:
        said = getattr(e, "message", "") or repr(e)
        raise BlockError(f"optiprune {' '.join(arguments)}: {said}") from e


def _check_targets(arguments: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in (a for a in arguments if "=" not in a):
        if not re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE):
            raise BlockError(f"the Makefile has no target {target!r}")


def _check_extras(arguments: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for argument in arguments:
        match = re.fullmatch(r"(?:\.|optiprune)\[([a-z,-]+)\]", argument)
        for extra in match[1].split(",") if match else ():
            if extra not in project["optional-dependencies"]:
                raise BlockError(f"there is no extra {extra!r}")


def _check_module(name: str, arguments: list[str]) -> None:
    """A module that is there, and whose text names the options."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise BlockError(f"there is no module {name!r}")
    folder = Path(spec.origin)
    texts = folder.parent.glob("*.py") if folder.name == "__init__.py" else [folder]
    text = "".join(p.read_text(encoding="utf-8") for p in texts)
    for option in (a for a in arguments if a.startswith("--")):
        if option.partition("=")[0] not in text:
            raise BlockError(f"python -m {name} has no option {option}")
