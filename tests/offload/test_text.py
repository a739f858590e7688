"""Windows of tokens from text files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from optiprune.curvature import CalibrationError
from optiprune.offload import documents, text, token_windows


class Letters:
    """A token for each character."""

    eos_token_id = 0

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        return {"input_ids": [ord(c) for c in text]}


def test_documents_of_lines_and_of_a_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "ab"}\n\n{"text": "c"}\n', encoding="utf-8")
    assert list(documents(path)) == ["ab", "c"]
    plain = tmp_path / "a.txt"
    plain.write_text("ab\nc", encoding="utf-8")
    assert list(documents(plain)) == ["ab\nc"]
    path.write_text(json.dumps({"body": "x"}), encoding="utf-8")
    assert list(documents(path, "body")) == ["x"]


def test_a_long_text_comes_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_PIECE", 4)
    plain = tmp_path / "a.txt"
    plain.write_text("abcdef\nghi\njkl\u00e9mnopqrst", encoding="utf-8")
    pieces = list(documents(plain))
    assert pieces == ["abcdef\n", "ghi\njkl\u00e9", "mnopqrst"]
    plain.write_text("", encoding="utf-8")
    assert list(documents(plain)) == []


@pytest.mark.parametrize(
    "line", ["{", "[1]", '{"body": "x"}', '{"text": 3}', "null", "[" * 100_000]
)
def test_a_line_that_is_none_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "ab"}\n' + line, encoding="utf-8")
    with pytest.raises(CalibrationError, match="line 2"):
        list(documents(path))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="there is no file"):
        list(documents(tmp_path / "none.txt"))
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CalibrationError, match="UTF-8"):
        list(documents(tmp_path / "a.txt"))


def test_windows_follow_one_another_with_the_end_between_documents() -> None:
    windows = token_windows(iter(["abc", "def", "never read"]), Letters(), 2, 4)
    assert windows.tolist() == [[97, 98, 99, 0], [100, 101, 102, 0]]
    assert windows.dtype == torch.int64
    later = token_windows(iter(["abc", "def"]), Letters(), 1, 4, skip=1)
    assert later.tolist() == [[100, 101, 102, 0]]


def test_too_little_text_is_told_in_numbers() -> None:
    with pytest.raises(CalibrationError, match="has 4 tokens, where 2 windows of 4 need 8"):
        token_windows(iter(["abc"]), Letters(), 2, 4)
