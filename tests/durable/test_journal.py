"""Steps on disk: read again, cut, changed, on a full disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune.durable import Journal, JournalError
from optiprune.durable import journal as journal_module

LONG = bytes(range(256)) * 40


def put(journal: Journal, key: str, content: bytes) -> None:
    """Short contents in the line, long ones in a file."""
    journal.put(key, content if len(content) < 4096 else lambda path: path.write_bytes(content))


def get(journal: Journal, key: str) -> bytes | None:
    found = journal.get(key)
    return found.read_bytes() if isinstance(found, Path) else found


def test_steps_are_there_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run")
    assert get(journal, "a") is None
    put(journal, "a", b"short")
    put(journal, "b/ü*?", LONG)
    put(journal, "a", b"other")
    again = Journal(tmp_path / "run")
    assert [e.key for e in again.entries] == ["b/ü*?", "a"]
    assert get(again, "a") == b"other"
    assert get(again, "b/ü*?") == LONG
    put(again, "b/ü*?", LONG[1:])
    assert len(list((tmp_path / "run" / "steps").iterdir())) == 1  # the contents before are gone
    assert get(Journal(tmp_path / "run"), "b/ü*?") == LONG[1:]
    Journal.remove(tmp_path / "run")
    assert Journal(tmp_path / "run").entries == ()
    assert list((tmp_path / "run").iterdir()) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=5), st.data())
def test_a_cut_at_any_byte_loses_the_step_in_flight_alone(tmp_path_factory, long, data) -> None:
    folder = tmp_path_factory.mktemp("run")
    journal = Journal(folder)
    ends = []
    for i, big in enumerate(long):
        put(journal, str(i), LONG + bytes([i]) if big else bytes([i]))
        ends.append((folder / "journal.jsonl").stat().st_size)
    cut = data.draw(st.integers(0, ends[-1]))
    os.truncate(folder / "journal.jsonl", cut)
    again = Journal(folder)
    whole = sum(end <= cut for end in ends)
    assert [e.key for e in again.entries] == [str(i) for i in range(whole)]
    put(again, "next", b"x" * 9000)
    last = Journal(folder)
    assert [e.key for e in last.entries] == [str(i) for i in range(whole)] + ["next"]
    for i in range(whole):
        assert get(last, str(i)) == (LONG + bytes([i]) if long[i] else bytes([i]))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_changed_byte_is_named_and_can_be_taken_as_missing(tmp_path_factory, data) -> None:
    folder = tmp_path_factory.mktemp("run")
    journal = Journal(folder)
    contents = {"a": b"1", "b": LONG, "c": b"3", "d": LONG[5:]}
    for key, content in contents.items():
        put(journal, key, content)
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    path = data.draw(st.sampled_from(files))
    raw = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)

    def read(repair: bool) -> dict[str, bytes | None]:
        found = Journal(folder, repair=repair)
        return {e.key: get(found, e.key) for e in found.entries}

    if path.name == "journal.jsonl" and at >= raw.rindex(b"\n", 0, len(raw) - 2):
        seen = read(False)  # the last line was hit: it is a step in flight
        assert seen == {k: v for k, v in contents.items() if k != "d"}
    else:
        with pytest.raises(JournalError, match=path.name.replace(".", r"\.")):
            read(False)
    kept = read(True)  # what was written before it
    assert list(kept) == list(contents)[: len(kept)]
    assert all(kept[k] == contents[k] for k in kept)
    assert read(False) == kept  # and it is repaired


def _put_two(journal: Journal, size: int) -> None:
    """A step that is a line alone calls fsync once, the disk may be full at the second."""
    put(journal, "in flight", b"x" * size)
    put(journal, "after", b"x" * size)


def test_missing_contents_are_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    put(journal, "layer", LONG)
    next((tmp_path / "steps").iterdir()).unlink()
    with pytest.raises(JournalError, match=r"000000-layer\.bin is missing"):
        get(Journal(tmp_path), "layer")
    repaired = Journal(tmp_path, repair=True)
    assert get(repaired, "layer") is None
    put(repaired, "layer", LONG)
    assert get(Journal(tmp_path), "layer") == LONG


@pytest.mark.parametrize("size", [10, 9000])
@pytest.mark.parametrize("nth", [0, 1])
def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch, size: int, nth: int) -> None:
    journal = Journal(tmp_path)
    put(journal, "before", LONG)
    real, calls = os.fsync, [0]

    def full(handle: int) -> None:
        calls[0] += 1
        if calls[0] > nth:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(journal_module.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        _put_two(journal, size)
    monkeypatch.setattr(journal_module.os, "fsync", real)
    for found in (journal, Journal(tmp_path)):
        assert get(found, "before") == LONG
    put(journal, "now", b"y" * size)
    assert get(Journal(tmp_path), "now") == b"y" * size
    assert not list((tmp_path / "steps").glob(".*"))
