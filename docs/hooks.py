"""mkdocs hook: fills in the tables that are made from the code, so that they never disagree.

A page asks for one with a line such as ``<!-- table: config -->``, and for a file that a benchmark
wrote with ``<!-- result: exact.md -->``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel

from optiprune import solvers
from optiprune.cli import app
from optiprune.cli.config import REQUIRED_EXAMPLES
from optiprune.cli.run_config import RunConfig
from optiprune.cli.solvers import capability_texts, option_default, summary_of
from optiprune.cli.template import template
from optiprune.config import PRESETS, Config, explain

MARKER = re.compile(r"^<!-- table: ([a-z-]+) -->$", re.MULTILINE)
RESULT = re.compile(r"^<!-- result: (\S+) -->$", re.MULTILINE)
COMMENT = re.compile(r"^<!-- (?:setup\n.*?|not run: [^\n]*)-->\n", re.MULTILINE | re.DOTALL)
RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """What mkdocs calls for each page.

    Raises KeyError for a table that nobody makes, OSError for a result that is not there.
    """
    shown = COMMENT.sub("", markdown)  # for the tests, see tests/docs/markdown_blocks.py
    shown = MARKER.sub(lambda match: TABLES[match[1]](), shown)
    return RESULT.sub(lambda match: result_text(RESULTS / match[1]), shown)


def on_config(config: Any) -> Any:
    """Link decisions that the navigation does not list yet: a new one is only a new file."""
    folder = Path(config["docs_dir"]) / "decisions"
    pages = sorted(f"decisions/{p.name}" for p in folder.glob("[0-9]*.md"))
    for entry in config["nav"] or []:
        if isinstance(entry, dict) and "Decisions" in entry:
            entry["Decisions"] = ["decisions/index.md", *pages]
    return config


def result_text(path: Path) -> str:
    """A result file below a heading of its name; its own headings become parts of that."""
    name = path.relative_to(RESULTS).as_posix()
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        text = re.sub(r"^(#+) (.*)$", _lower, text, flags=re.MULTILINE)
        text = re.sub(r"^!\[[^\]]*\]\([^)]*\)\n?", "", text, flags=re.MULTILINE)  # beside the file
    else:
        text = f"```text\n{text.rstrip()}\n```\n"
    return f"### `{name}`\n\n{text}"


def _lower(match: re.Match[str]) -> str:
    """A heading in bold: as headings they would fill the contents of the page."""
    return f"**{match[2].strip('* ')}**"


def other_results() -> str:
    """Every result file that no page asks for by name."""
    pages = Path(__file__).resolve().parent.rglob("*.md")
    named = {name for page in pages for name in RESULT.findall(page.read_text(encoding="utf-8"))}
    files = sorted(p for kind in ("*.md", "*.txt") for p in RESULTS.rglob(kind))
    others = [p for p in files if p.relative_to(RESULTS).as_posix() not in named]
    return "\n\n".join(result_text(p) for p in others)


def config_tables() -> str:
    """One table a section of the file that `optiprune prune` reads."""
    return _option_tables(RunConfig)


def training_tables() -> str:
    """One table a section of the file that `optiprune train` reads."""
    from optiprune.cli.train_config import TrainRunConfig

    return _option_tables(TrainRunConfig)


def pretrained_tables() -> str:
    """One table a section that runs over model directories have in place of [model] and [data]."""
    from optiprune.cli.pretrained_config import PretrainedRunConfig

    return _option_tables(PretrainedRunConfig, only=("pretrained", "text", "output"))


def _option_tables(kind: type[BaseModel], only: tuple[str, ...] = ()) -> str:
    sections: dict[str, list[str]] = {}
    for key, kind_of_value, default, meaning in explain(kind):
        section, _, name = key.rpartition(".")
        if only and section not in only:
            continue
        cells = (f"`{name}`", kind_of_value, f"`{default}`", meaning)
        sections.setdefault(section, []).append(_row(cells))
    parts = []
    for section, rows in sections.items():
        title = f"`[{section}]`" if section else "Top level"
        parts += [f"## {title}", "", _row(("option", "type", "default", "meaning")), _row("----")]
        parts += [*rows, ""]
    return "\n".join(parts)


def preset_table() -> str:
    """Every option that a preset sets, in all of them."""
    keys = dict.fromkeys((s, k) for p in PRESETS.values() for s, t in p.items() for k in t)
    configs = {name: Config.from_table({"preset": name}) for name in PRESETS}
    parts = [_row(("option", *(f"`{name}`" for name in PRESETS))), _row("-" * (len(PRESETS) + 1))]
    for section, key in keys:
        values = (getattr(getattr(c, section), key) for c in configs.values())
        shown = (f"`{v:g}`" if isinstance(v, float) else f"`{v}`" for v in values)
        parts.append(_row((f"`{section}.{key}`", *shown)))
    return "\n".join(parts)


def training_template() -> str:
    from optiprune.cli.config import TRAIN_EXAMPLES
    from optiprune.cli.train_config import TrainRunConfig

    return f"```toml\n{template(TrainRunConfig, TRAIN_EXAMPLES)}```"


def config_template() -> str:
    return f"```toml\n{template(RunConfig, REQUIRED_EXAMPLES)}```"


def solver_tables() -> str:
    """All solvers at a glance, then one section each with its options."""
    parts = [
        _row(("solver", "problems", "exact", "largest n", "keeps its time limit")),
        _row("-----"),
    ]
    classes = {name: solvers.solver_class(name) for name in solvers.names()}
    for name, cls in classes.items():
        problems, exact, largest, keeps = capability_texts(cls)
        cells = (f"[`{name}`](#{name})", ", ".join(problems.split()), exact, largest, keeps)
        parts.append(_row(cells))
    for name, cls in classes.items():
        parts += ["", f"## {name}", "", summary_of(cls), ""]
        options = solvers.options_of(cls)
        if options:
            parts += [_row(("option", "default")), _row("--")]
            parts += [_row((f"`{k}`", f"`{option_default(v)}`")) for k, v in options.items()]
    return "\n".join(parts)


def command_texts() -> str:
    """The help text of every command."""
    group = typer.main.get_command(app)
    return "\n\n".join(_help_texts(group))


def _help_texts(group: Any, before: Sequence[str] = ()) -> Iterator[str]:
    from typer.testing import CliRunner

    for name, command in group.commands.items():
        words = [*before, name]
        if hasattr(command, "commands"):
            yield from _help_texts(command, words)
            continue
        arguments = [*words, "--help"]
        shown = CliRunner().invoke(app, arguments, terminal_width=96, prog_name="optiprune")
        if shown.exit_code != 0:
            raise RuntimeError(f"optiprune {' '.join(words)} --help failed: {shown.output}")
        yield f"## optiprune {' '.join(words)}\n\n```text\n{shown.output.strip()}\n```"


def _row(cells: tuple[str, ...] | str) -> str:
    """A row of a Markdown table; a string of dashes makes the line below the head."""
    if isinstance(cells, str):
        return "|" + "---|" * len(cells)
    return "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |"


TABLES: dict[str, Callable[[], str]] = {
    "config": config_tables,
    "config-template": config_template,
    "pretrained-config": pretrained_tables,
    "training-config": training_tables,
    "training-template": training_template,
    "other-results": other_results,
    "presets": preset_table,
    "solvers": solver_tables,
    "commands": command_texts,
}
