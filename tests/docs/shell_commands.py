"""A shell block as commands: what pages use of the shell, and an error for anything else."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

__all__ = ["Command", "commands_of"]

_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*")
_JOINS = {"&&", ";"}


@dataclass(frozen=True, slots=True)
class Command:
    """Words of a command, and the file that its output goes to (empty: none)."""

    words: tuple[str, ...]
    target: str = ""


def commands_of(code: str) -> list[Command]:
    """The commands of a block, in order.

    Raises
    ------
    ValueError
        Quotes that do not close, or an operator other than ``&&``, ``;`` and ``>``.
    """
    out = []
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for token in [*lexer, ";"]:
            if token in _JOINS:
                if words:
                    out.append(_command(words))
                words = []
            else:
                words.append(token)
    return out


def _command(words: list[str]) -> Command:
    target = ""
    if len(words) > 2 and words[-2] == ">":
        target = words[-1]
        words = words[:-2]
    odd = [w for w in words if re.fullmatch(r"[();<>|&]+", w)]
    if odd:
        raise ValueError(f"{' '.join(words)}: {odd[0]!r} is not understood here")
    while words and _ASSIGNMENT.fullmatch(words[0]):
        words = words[1:]
    return Command(tuple(words), target)
