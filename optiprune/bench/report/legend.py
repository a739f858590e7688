"""A legend below a figure that has room for all of its entries, however many and long they are."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

__all__ = ["Legend"]

_FONT_SIZE = 7.0
_MOST_COLUMNS = 4
# in units of the font size, as matplotlib draws legends: the line beside a text, the gaps
_BESIDE = 4.8
_LINE = 1.25
_BETWEEN = 0.5
_CHARACTER = 0.62


@dataclass(frozen=True, slots=True)
class Legend:
    """Entries in columns.

    Attributes
    ----------
    texts : label -> what is written, with breaks where one is wider than the figure
    height : inches that it takes
    """

    texts: dict[str, str]
    columns: int
    height: float

    @classmethod
    def of(cls, labels: Sequence[str], width: float) -> Legend:
        """For a figure of so many inches in width."""
        room = 72 * width / _FONT_SIZE - _BESIDE
        characters = int(room / _CHARACTER)
        texts = {label: _wrapped(label, characters) for label in labels}
        widest = max((_width(text) for text in texts.values()), default=0.0) + _BESIDE
        columns = int((room + _BESIDE) / widest) if widest else 1
        columns = max(1, min(_MOST_COLUMNS, len(texts), columns))
        # matplotlib fills columns from above, each with its own share of the entries
        lines = [text.count("\n") + 1 for text in texts.values()]
        deep = -(-len(lines) // columns)
        stacks = [lines[at : at + deep] for at in range(0, len(lines), deep)]
        tall = max((_LINE * sum(s) + _BETWEEN * len(s) for s in stacks), default=0.0)
        return cls(texts, columns, tall * _FONT_SIZE / 72)

    def draw(self, figure: Figure, handles: dict[str, Any]) -> None:
        """Below all axes. Labels without a line in the figure are left out."""
        shown = [label for label in self.texts if label in handles]
        if shown:
            figure.legend(
                [handles[label] for label in shown],
                [self.texts[label] for label in shown],
                loc="outside lower center",
                ncols=min(self.columns, len(shown)),
                frameon=False,
                fontsize=_FONT_SIZE,
            )


def _wrapped(label: str, characters: int) -> str:
    if len(label) <= characters:
        return label
    # between options rather than within one
    return "\n".join(textwrap.wrap(label.replace(",", ", "), characters, break_on_hyphens=False))


def _width(text: str) -> float:
    """In units of the font size; of the longest line."""
    return max(
        float(TextPath((0, 0), line, size=10).get_extents().width) / 10 for line in text.split("\n")
    )
