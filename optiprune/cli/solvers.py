"""``optiprune solvers``: which solvers there are, what they take, and what can be set."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from optiprune import solvers
from optiprune.solvers import SolverError

from .console import output
from .errors import Debug, reporting

__all__ = ["capability_texts", "option_default", "solvers_command", "summary_of"]


def solvers_command(
    name: Annotated[
        str | None, typer.Argument(help="Show one solver with its options.", show_default=False)
    ] = None,
    debug: Debug = False,
) -> None:
    """List the registered solvers, or show one with its hyperparameters."""
    with reporting(debug):
        if name is None:
            _list_all()
        else:
            _show(name)


def _list_all() -> None:
    table = Table(title="Solvers", title_justify="left", show_lines=True)
    for column in ("name", "problems", "exact", "keeps time limit", "options (defaults)"):
        table.add_column(column, overflow="fold")
    table.add_column("what it does", overflow="fold", ratio=1)
    for name in solvers.names():
        try:
            cls = solvers.solver_class(name)
        except SolverError as e:
            # a third party's broken entry point must not hide the others
            table.add_row(name, "", "", "", "", escape(str(e)))
            continue
        problems, exact, _, keeps = capability_texts(cls)
        options = "\n".join(
            f"{k} = {option_default(v)}" for k, v in solvers.options_of(cls).items()
        )
        table.add_row(name, problems, exact, keeps, escape(options), escape(summary_of(cls)))
    console = output()
    console.print(table)
    console.print("Show one with its documentation: optiprune solvers NAME", style="dim")


def _show(name: str) -> None:
    cls = solvers.solver_class(name)
    problems, exact, max_n, keeps = capability_texts(cls)
    console = output()
    console.print(f"[bold]{escape(name)}[/bold]")
    console.print(escape(inspect.getdoc(cls) or ""), soft_wrap=True)
    facts = Table(show_header=False, title="What it can do", title_justify="left")
    facts.add_row("problems", problems)
    facts.add_row("exact", exact)
    facts.add_row("largest n", max_n)
    facts.add_row("keeps time limit", keeps)
    console.print(facts)
    table = Table("option", "type", "default", title="Options", title_justify="left")
    types = _types(cls)
    for option, default in solvers.options_of(cls).items():
        table.add_row(option, escape(types.get(option, "")), escape(option_default(default)))
    console.print(table if table.row_count else "It has no options.")


def option_default(value: Any) -> str:
    """A default as it would be written in a run file."""
    if value is dataclasses.MISSING:
        return "(required)"
    if value is None:
        return "(none)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    return str(value)


def capability_texts(cls: Any) -> tuple[str, str, str, str]:
    """Problem types (one a line), exact, largest n, keeps its time limit; '?' where undeclared."""
    caps = getattr(cls, "capabilities", None)
    if not isinstance(caps, solvers.Capabilities):
        # an instance property of a solver that follows the protocol alone
        return "?", "?", "?", "?"
    problems = "\n".join(sorted(t.__name__ for t in caps.problems))
    largest = "any" if caps.max_n is None else str(caps.max_n)
    return problems, _yes(caps.exact), largest, _yes(caps.keeps_time_limit)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _types(cls: type) -> dict[str, str]:
    if not dataclasses.is_dataclass(cls):
        return {}
    return {
        f.name: f.type if isinstance(f.type, str) else getattr(f.type, "__name__", str(f.type))
        for f in dataclasses.fields(cls)
    }


def summary_of(cls: type) -> str:
    """The first paragraph of a class's docstring, on one line."""
    text = inspect.getdoc(cls) or ""
    # the first paragraph up to its first full stop, joined to one line
    return " ".join(text.split("\n\n")[0].split())
