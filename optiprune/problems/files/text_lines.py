"""Lines of a text file that nobody has vouched for, with their numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from .limits import located

__all__ = ["TextLines"]

_MAX_LINE = 4096


class TextLines:
    """Reads the non-blank, non-comment lines of a file, split at white space.

    A line that starts with ``#`` is a comment. A line that is too long, not ASCII, or holds a
    character that belongs in no number raises `FileFormatError` with its number, as do the parsing
    methods. Use as a context manager.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.line = 0
        self._file: BinaryIO = open(path, "rb")  # noqa: SIM115
        self._tokens = self._read()

    def __enter__(self) -> TextLines:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[list[bytes]]:
        return self._tokens

    def _read(self) -> Iterator[list[bytes]]:
        while raw := self._file.readline(_MAX_LINE + 1):
            self.line += 1
            if len(raw) > _MAX_LINE:
                raise self.error(f"the line is longer than {_MAX_LINE} bytes")
            if not raw.endswith(b"\n"):
                # cut inside a number, the line would still parse
                raise self.error("the last line has no newline: truncated? (if not, add one)")
            if raw.startswith(b"#"):
                continue
            tokens = raw.split()
            if tokens:
                yield tokens

    def next(self, what: str) -> list[bytes]:
        """The next line's tokens; at the end of the file an error that names ``what``."""
        tokens = next(self._tokens, None)
        if tokens is not None:
            return tokens
        self.line += 1
        raise self.error(f"the file ends where {what} should be (truncated?)")

    def end(self) -> None:
        """Require that nothing but blank lines and comments is left."""
        for tokens in self:
            raise self.error(f"trailing content after the last entry: {_show(tokens[0])}")

    def integer(self, token: bytes, what: str, low: int, high: int | None = None) -> int:
        digits = token[1:] if token[:1] in b"+-" and len(token) > 1 else token
        # int() alone would take underscores
        if not digits.isdigit():
            raise self.error(f"{what} must be an integer, got {_show(token)}")
        value = int(token) if len(token) <= 20 else None
        if value is None or value < low or (high is not None and value > high):
            span = f"at least {low}" if high is None else f"between {low} and {high}"
            raise self.error(f"{what} must be {span}, got {_show(token)}")
        return value

    def number(self, token: bytes, what: str) -> float:
        try:
            value = float(token)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or b"_" in token:
            raise self.error(f"{what} must be a finite number, got {_show(token)}")
        return value

    def error(self, message: str) -> Exception:
        return located(self.path, self.line, message)


def _show(token: bytes) -> str:
    text = token.decode("ascii", "backslashreplace")
    return repr(text if len(text) <= 40 else text[:40] + "...")
