"""A file is there whole, or as it was before."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from optiprune.durable import replacing
from optiprune.durable.replacing import remove_leftovers


def test_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with replacing(path) as part:
        assert part.suffix == ".json"
        part.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"
    with pytest.raises(OSError, match="full"):
        _half_written(path)
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def _half_written(path: Path) -> None:
    with replacing(path) as part:
        part.write_text("half of tw")
        raise OSError("the disk is full")


def test_a_wrapped_error_of_the_system_is_one(tmp_path: Path) -> None:
    def write() -> None:
        with replacing(tmp_path / "a"):
            raise RuntimeError("I/O error: No space left on device (os error 28)")

    with pytest.raises(OSError, match="No space left") as info:
        write()
    assert info.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="permissions of posix")
def test_permissions_are_those_of_the_file_before_or_of_open(tmp_path: Path) -> None:
    plain, path = tmp_path / "plain", tmp_path / "new"
    plain.write_text("")
    with replacing(path) as part:
        part.write_text("")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    path.chmod(0o600)
    with replacing(path) as part:
        part.write_text("again")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_leftovers_of_a_killed_process(tmp_path: Path) -> None:
    (tmp_path / ".a.json.part-x1").write_text("half")
    (tmp_path / ".hidden").write_text("of the user")
    (tmp_path / "a.json").write_text("whole")
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".hidden", "a.json"]
