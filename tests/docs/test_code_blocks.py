"""Every code block of the documentation runs, in the order of its page, or says why it does not.

A new page is found by itself. `markdown_blocks` has the two comments that a page can hold,
`block_runner` what is done with a block of each language.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from block_runner import BlockError, PageRunner
from markdown_blocks import Block, blocks_of
from shell_commands import Command, commands_of

from optiprune import solvers

ROOT = Path(__file__).resolve().parents[2]
STAGE = Path(__file__).resolve().parent / "stage"
PAGES = [
    *(ROOT / n for n in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("**/*.md")),
]
# Pages that take more than some ten seconds
SLOW = {"docs/quickstart.md"}
# Blocks that are checked and not run. A number to be argued about in a review, not to be raised.
MOST_NOT_RUN = 12


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def with_blocks() -> list[object]:
    found = [(name_of(p), p) for p in PAGES if "```" in p.read_text(encoding="utf-8")]
    return [
        pytest.param(p, id=name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name, p in found
    ]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A folder with what the pages say that the reader has, and the namespace of the page."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(STAGE, tmp_path, dirs_exist_ok=True)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(ROOT))  # benchmarks, of which some pages tell
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    names, loaded, threads = set(solvers.names()), set(sys.modules), torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        yield module
    torch.set_num_threads(threads)
    for name in set(solvers.names()) - names:
        solvers.unregister(name)
    for name in set(sys.modules) - loaded:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.mark.parametrize("page", with_blocks())
def test_blocks_run(page: Path, stage: ModuleType) -> None:
    runner = PageRunner(page, stage)
    for block in blocks_of(page):
        runner.run(block)


def test_few_blocks_are_not_run() -> None:
    left_out = [
        f"{name_of(page)}:{block.line}: {block.not_run}"
        for page in PAGES
        for block in blocks_of(page)
        if block.not_run is not None
    ]
    assert len(left_out) <= MOST_NOT_RUN, "\n".join(left_out)


class TestTheCheckItself:
    """It would not see a fault that it cannot fail on."""

    @pytest.mark.parametrize(
        ("language", "code", "fault"),
        [
            ("bash", "optiprune prune run.toml --no-such-option", "No such option"),
            ("bash", "optiprune no-such-command", "no command"),
            ("bash", "optiprune bench solvers --budget many", "many"),
            ("bash", "optiprune config no-such-file.toml", "ended with 2"),
            ("bash", "make no-such-target", "no target"),
            ("bash", "pip install '.[no-such-extra]'", "no extra"),
            ("bash", "python -m benchmarks.no_such_module", "no module"),
            ("bash", "python -m benchmarks.layer_error --no-such-option", "no option"),
            ("bash", "frobnicate", "no way to check"),
            ("Python", "print(1)", "no way to check"),
            ("", "print(1)", "no way to check"),
        ],
    )
    def test_a_wrong_block(self, stage: ModuleType, language: str, code: str, fault: str) -> None:
        with pytest.raises(BlockError, match=fault):
            PageRunner(Path("page.md"), stage).run(Block(language, "", code, 7))

    def test_wrong_tables(self, stage: ModuleType) -> None:
        for code in (
            "[prune]\nsparsiti = 0.9",
            "[solver]\nname = 'annealing'\nswepes = 3",
            "[model]\nfactory = 'a.py:f'",
            "[quality]\nmodles = ['digits']",
        ):
            with pytest.raises(Exception, match=r"(?s)sparsiti|swepes|data|modles"):
                PageRunner(Path("page.md"), stage).run(Block("toml", "", code, 7))

    def test_a_traceback_has_the_line_of_the_page(self, stage: ModuleType) -> None:
        with pytest.raises(ZeroDivisionError) as caught:
            PageRunner(Path("page.md"), stage).run(Block("python", "", "x = 1\nx / 0\n", 41))
        assert caught.traceback[-1].lineno == 41  # counted from 0
        assert str(caught.traceback[-1].path).endswith("page.md")

    def test_a_block_that_is_not_run_is_still_checked(self, stage: ModuleType) -> None:
        runner = PageRunner(Path("page.md"), stage)
        runner.run(Block("python", "", "1 / 0", 7, not_run="no hardware"))
        with pytest.raises(SyntaxError):
            runner.run(Block("python", "", "1 /", 7, not_run="no hardware"))
        with pytest.raises(BlockError):
            runner.run(Block("bash", "", "optiprune prune --no-such", 7, not_run="minutes"))

    def test_a_title_makes_a_file(self, stage: ModuleType) -> None:
        runner = PageRunner(Path("page.md"), stage)
        runner.run(Block("python", "mine.py", "ANSWER = 42\n", 7))
        runner.run(Block("python", "", "import mine\nassert mine.ANSWER == ANSWER == 42\n", 9))


def test_blocks_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        'Text\n\n<!-- setup\nx = 1\n-->\n\n```toml title="a.toml"\na = 1\n```\n\n'
        "- item\n\n    ```bash\n    ls\n    ```\n\n<!-- not run: no GPU -->\n\n~~~python\ny\n~~~\n"
    )
    assert blocks_of(page) == [
        Block("python", "", "x = 1\n", 4),
        Block("toml", "a.toml", "a = 1\n", 8),
        Block("bash", "", "ls\n", 14),
        Block("python", "", "y\n", 20, "no GPU"),
    ]


@pytest.mark.parametrize("text", ["<!-- not run: why -->\n\nText\n", "<!-- not run: why -->\n"])
def test_a_marker_before_no_block(tmp_path: Path, text: str) -> None:
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(ValueError, match="before no block"):
        blocks_of(tmp_path / "page.md")


@pytest.mark.parametrize("text", ["<!-- not run -->\n", "<!-- Not run: x, not run y -->\n"])
def test_a_marker_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(ValueError, match="not a marker"):
        blocks_of(tmp_path / "page.md")


def test_commands_of_a_block() -> None:
    code = "A=1 make demo  # text\n\noptiprune x \\\n  --y 'a b' > f.toml && pip install '.[a]'\n"
    assert commands_of(code) == [
        Command(("make", "demo")),
        Command(("optiprune", "x", "--y", "a b"), "f.toml"),
        Command(("pip", "install", ".[a]")),
    ]
    with pytest.raises(ValueError, match="not understood"):
        commands_of("optiprune x | head")
