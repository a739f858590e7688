"""The fenced code blocks of a Markdown page, in order, with what a comment before them says.

Two comments mean something here, and are not shown to readers:

``<!-- not run: REASON -->``
    The next block is checked but not run: it needs hardware, the network, or minutes.
``<!-- setup`` ... ``-->``
    Python that runs in its place among the blocks, for what the reader is assumed to have.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

__all__ = ["Block", "blocks_of"]

_NOT_RUN = re.compile(r"\s*<!-- not run: (\S[^\n]*?) -->\s*")
_SETUP = re.compile(r"\s*<!-- setup\n(.*?)-->\s*", re.DOTALL)
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True, slots=True)
class Block:
    """One block of code.

    Attributes
    ----------
    language : first word after the fence
    title : name of the file that the block shows; empty if it has none
    code : its text
    line : of its first line of code in the page, from 1
    not_run : the reason; None for one that is run
    """

    language: str
    title: str
    code: str
    line: int
    not_run: str | None = None


def blocks_of(page: Path) -> list[Block]:
    """All blocks of a page. Raises ValueError for a marker that no block follows."""
    out: list[Block] = []
    reason = None
    for token in _tokens(page.read_text(encoding="utf-8")):
        if token.type == "fence":
            language, _, rest = token.info.strip().partition(" ")
            title = _TITLE.search(rest)
            name = title[1] if title else ""
            out.append(Block(language, name, token.content, _line(token) + 1, reason))
            reason = None
        elif token.type == "html_block":
            if setup := _SETUP.fullmatch(token.content):
                out.append(Block("python", "", textwrap.dedent(setup[1]), _line(token) + 1))
            elif marker := _NOT_RUN.fullmatch(token.content):
                reason = marker[1]
            elif "not run" in token.content or "setup" in token.content:
                raise ValueError(f"{page}:{_line(token)}: not a marker: {token.content!r}")
        elif reason is not None and token.type not in _LISTS:
            raise ValueError(f"{page}:{_line(token)}: 'not run' stands before no block")
    if reason is not None:
        raise ValueError(f"{page}: 'not run' stands before no block")
    return out


_LISTS = ("list_item_open", "list_item_close", "bullet_list_open", "bullet_list_close")


def _tokens(text: str) -> list[Token]:
    return MarkdownIt("commonmark").parse(text)


def _line(token: Token) -> int:
    return token.map[0] + 1 if token.map else 0
