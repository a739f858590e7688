"""A journal that is looked at: what is whole is seen, and nothing is touched."""

from __future__ import annotations

from pathlib import Path

from optiprune.durable import Journal, JournalView


def test_a_view_shows_the_steps_and_changes_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.put("a", b"one")
    journal.put("b", lambda path: path.write_bytes(b"two"))
    journal.put("a", b"three")
    with open(tmp_path / "journal.jsonl", "ab") as file:
        file.write(b'{"n": 3, "key": "c"')  # a step that is being written
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    view = JournalView.read(tmp_path)
    assert [(e.key, e.number) for e in view.entries] == [("b", 1), ("a", 2)]
    assert view.damaged == 1
    file, inline = (view.content(e) for e in view.entries)
    assert isinstance(file, Path)
    assert (file.read_bytes(), inline) == (b"two", b"three")
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_no_journal_is_an_empty_one(tmp_path: Path) -> None:
    assert JournalView.read(tmp_path / "nothing").entries == ()
    assert not list(tmp_path.iterdir())
