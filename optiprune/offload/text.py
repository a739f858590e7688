"""Calibration samples of a language model: windows of tokens of a text file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optiprune.curvature import CalibrationError

from .errors import ModelDirectoryError

__all__ = ["context_length", "documents", "load_tokenizer", "position_limit", "token_windows"]

# characters of a plain text that are read at once: a corpus may be larger than memory
_PIECE = 1 << 20


def documents(path: Path, field: str = "text") -> Iterator[str]:
    """The documents of a file: of ``.jsonl`` one a line, under the key ``field``; else all of it,
    in pieces of a million characters, up to the end of a line.

    Raises
    ------
    CalibrationError
        No such file; a line that is no JSON object with that key; no UTF-8.
    """
    if not path.is_file():
        raise CalibrationError(f"data.text: there is no file {path}")
    try:
        with path.open(encoding="utf-8") as lines:
            if path.suffix not in (".jsonl", ".ndjson"):
                while piece := lines.read(_PIECE):
                    yield piece + lines.readline(_PIECE)
                return
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)[field]
                except (ValueError, KeyError, TypeError, RecursionError) as e:
                    raise CalibrationError(
                        f"{path}, line {number}: no JSON object with the key {field!r} "
                        f"({type(e).__name__})"
                    ) from None
                if not isinstance(value, str):
                    raise CalibrationError(f"{path}, line {number}: {field!r} is no text")
                yield value
    except UnicodeDecodeError as e:
        raise CalibrationError(f"{path} is no UTF-8 text: {e}") from None


def token_windows(
    texts: Iterator[str], tokenizer: Any, samples: int, length: int, skip: int = 0
) -> Tensor:
    """The first windows of the texts' tokens, int64 (samples, length).

    Documents follow one another with the end-of-text token between them; no document is read that
    is not needed.

    Parameters
    ----------
    skip : windows to leave out before the first

    Raises
    ------
    CalibrationError
        The text is too short.
    """
    wanted = (skip + samples) * length
    tokens: list[int] = []
    end = tokenizer.eos_token_id
    for text in texts:
        tokens += tokenizer(text, add_special_tokens=False)["input_ids"]
        if end is not None:
            tokens.append(int(end))
        if len(tokens) >= wanted:
            break
    if len(tokens) < wanted:
        raise CalibrationError(
            f"the calibration text has {len(tokens)} tokens, where {skip + samples} windows of "
            f"{length} need {wanted}; give more text, or lower data.samples or data.length"
        )
    windows = torch.tensor(tokens[:wanted], dtype=torch.int64).reshape(-1, length)
    return windows[skip:]


def context_length(folder: Path) -> int | None:
    """Tokens that the model of a directory takes at most; None if its config does not say.

    Raises `ModelDirectoryError` if there is no config.json, or it is no JSON object.
    """
    path = folder / "config.json"
    try:
        return position_limit(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError, RecursionError) as e:
        raise ModelDirectoryError(f"{path} cannot be read: {type(e).__name__}: {e}") from e


def position_limit(config: Mapping[str, Any]) -> int | None:
    """Tokens that a model of transformers takes at most; None if its config does not say."""
    found = config.get("max_position_embeddings") or config.get("n_positions")
    return found if isinstance(found, int) and found > 0 else None


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """That of a model directory. Raises `ModelDirectoryError` if there is none."""
    try:
        import transformers

        return transformers.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=trust_remote_code, local_files_only=True
        )
    except Exception as e:  # each tokenizer library has errors of its own
        raise ModelDirectoryError(
            f"{folder}: its tokenizer cannot be loaded: {type(e).__name__}: {e}; give token ids "
            "from Python (prune_pretrained), or put the tokenizer's files there"
        ) from e
