"""English Wikipedia articles as plain text, from the dump in gensim's test data.

The package is installed for this file alone: ``pip install --no-deps gensim`` (24 MB). Its dump
(shortened; text CC BY-SA) holds 89 articles of 2,000 characters and more, 2.5 MB of text.
"""

from __future__ import annotations

import bz2
import html
import importlib.util
import re
from pathlib import Path

from .quality import MissingRequirementError

__all__ = ["articles", "plain_text"]

INSTALL = "pip install --no-deps gensim"
_DUMP = "test/test_data/enwiki-latest-pages-articles1*.bz2"
_END = r"\n==\s*(?:See also|References|External links|Notes|Further reading|Bibliography)"


def articles(min_chars: int = 2000) -> list[str]:
    """The articles in the order of the dump, redirects and short ones left out.

    Raises `MissingRequirementError` if the dump is not installed.
    """
    spec = importlib.util.find_spec("gensim")
    root = None if spec is None or spec.origin is None else Path(spec.origin).parent
    found = [] if root is None else sorted(root.glob(_DUMP))
    if not found:
        raise MissingRequirementError(
            f"the Wikipedia articles of the benchmark come with gensim, and {_DUMP} of it is not "
            f"installed here; install it with: {INSTALL}"
        )
    with bz2.open(found[0], "rt", encoding="utf8") as f:
        pages = re.findall(r"<title>.*?</title>.*?<text[^>]*>(.*?)</text>", f.read(), flags=re.S)
    texts = (plain_text(p) for p in pages if not p.lstrip().lower().startswith("#redirect"))
    return [t for t in texts if len(t) >= min_chars]


def plain_text(page: str) -> str:
    """Running text and headings of one article in wiki markup.

    A few rules, not a parser: what they leave of tables and nested templates is noise that every
    method sees. The order of the rules is part of the data set: another order gives other tokens.
    """
    text = html.unescape(html.unescape(page))
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r"<ref[^>/]*/>", "", text)
    text = re.sub(r"<ref.*?</ref>", "", text, flags=re.S)
    tags = r"<(math|gallery|code|timeline|source|table|syntaxhighlight).*?</\1>"
    text = re.sub(tags, "", text, flags=re.S)
    for _ in range(6):  # templates stand inside templates
        text = re.sub(r"\{\{[^{}]*\}\}", "", text)
    for _ in range(3):
        text = re.sub(r"\{\|[^{}]*?\|\}", "", text, flags=re.S)
    for _ in range(3):
        text = re.sub(r"\[\[(?:File|Image|Category|[a-z\-]{2,12}):[^\[\]]*\]\]", "", text)
    text = re.sub(r"\[\[(?:[^\[\]|]*\|)?([^\[\]]*)\]\]", r"\1", text)
    text = re.sub(r"\[\[[^\n]*\]\]|\[https?://\S+ ?([^\]]*)\]", r"\1", text)
    text = re.sub(r"'{2,}", "", text)
    text = re.sub(r"<[^>]+>", "", text)
    text = re.split(_END, text)[0]
    text = re.sub(r"^=+ *(.*?) *=+ *$", r"\n\1\n", text, flags=re.M)
    lines = (line for line in text.split("\n") if not re.match(r"^\s*[*#|!:{}]", line))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
