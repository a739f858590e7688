"""``optiprune report RUN ...``: a page about one run, or about several side by side."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from .errors import Debug, InputError, reporting

__all__ = ["report_command"]


class Form(str, Enum):
    """What a report is written as."""

    html = "html"
    markdown = "markdown"
    json = "json"


_ENDINGS = {
    ".html": Form.html,
    ".htm": Form.html,
    ".md": Form.markdown,
    ".markdown": Form.markdown,
    ".json": Form.json,
}
_NAMES = {Form.html: "report.html", Form.markdown: "report.md", Form.json: "report.json"}


def report_command(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of results of `optiprune prune`, finished or not.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write, or - for standard output; by default report.html (.md, .json) in "
            "the run's folder, and in the present one for several runs.",
            show_default=False,
        ),
    ] = None,
    form: Annotated[
        Form | None,
        typer.Option(
            "--format",
            help="html, markdown or json; by default as the ending of --out says, else html.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that --out names.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Write a report: one HTML page that needs no network, or Markdown, or JSON."""
    with reporting(debug):
        chosen = form or (_ENDINGS.get(out.suffix.lower()) if out else None) or Form.html
        to_stdout = out is not None and str(out) == "-"
        target = _default(runs, chosen) if out is None else out
        if not to_stdout:
            _check(target, named=out is not None, force=force)

        from optiprune.durable import replacing
        from optiprune.report import FORMS, make_document, read_runs, run_files

        found = read_runs(runs)
        if not to_stdout and target.resolve() in {
            path for run in found for path in run_files(run.folder, run.config)
        }:
            raise InputError(f"--out: {target} is a file of the run itself; choose another name")
        text = FORMS[chosen.value](make_document(found))
        if to_stdout:
            typer.echo(text, nl=False)
            return
        with replacing(target) as part:
            part.write_text(text, encoding="utf-8")
        typer.echo(f"written: {target}")


def _default(runs: list[Path], form: Form) -> Path:
    return (runs[0] if len(runs) == 1 else Path()) / _NAMES[form]


def _check(target: Path, *, named: bool, force: bool) -> None:
    if target.is_dir():
        raise InputError(f"--out: {target} is a folder; name a file in it")
    if named and target.exists() and not force:
        raise InputError(f"--out: {target} exists; choose another name, or replace it with --force")
    if named and not target.parent.is_dir():
        raise InputError(f"--out: there is no folder {target.parent}")
