"""Patterns by name: what a config or a check asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Block", "PatternError", "parse"]


class PatternError(ValueError):
    """The text names no pattern; the message says what would."""


@dataclass(frozen=True, slots=True)
class Block:
    """Tiles of ``rows`` x ``cols`` weights, each kept or pruned as a whole."""

    rows: int
    cols: int

    def __str__(self) -> str:
        return f"block:{self.rows}x{self.cols}"

    @property
    def numel(self) -> int:
        return self.rows * self.cols


def parse(text: str) -> tuple[int, int] | Block | None:
    """None for 'unstructured', (N, M) for 'N:M', a `Block` for 'block:RxC' ('block:C' is 1 x C).

    Raises
    ------
    PatternError
        For any other text, an N that is not between 0 and M, a block of less than two weights.
    """
    if text == "unstructured":
        return None
    if match := re.fullmatch(r"(\d+):(\d+)", text):
        n, m = int(match[1]), int(match[2])
        if not 0 < n < m:
            raise PatternError(f"pattern N:M needs 0 < N < M, got {text!r}")
        return n, m
    if match := re.fullmatch(r"block:(?:(\d+)x)?(\d+)", text):
        block = Block(int(match[1] or 1), int(match[2]))
        if block.numel < 2:
            raise PatternError(f"a block needs at least two weights, got {text!r}")
        return block
    raise PatternError(
        "pattern must be 'unstructured', 'row-balanced', 'N:M' such as '2:4', or 'block:RxC' such "
        f"as 'block:1x16', got {text!r}"
    )
