"""Damaged files that optiprune wrote: what is documented for them, and nothing else.

`benchmarks.fuzz_state` does the same by the ten thousand, and under a limit on memory.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from benchmarks.fuzz_state import KINDS, Kind, examine, spoiled_state


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def sound(tmp_path: Path, kind: Kind) -> Path:
    folder = tmp_path / "sound"
    folder.mkdir()
    kind.write(folder)
    return folder


def outcomes(kind: Kind, sound: Path, seeds: range) -> set[str]:
    data = (sound / kind.file).read_bytes()
    found = set()
    for seed in seeds:
        folder = sound.parent / "spoiled"
        shutil.copytree(sound, folder)
        (folder / kind.file).write_bytes(spoiled_state(kind, data, random.Random(seed)))
        found.add(examine(kind, folder))
        shutil.rmtree(folder)
    return found


def test_the_file_is_sound_before(kind: Kind, sound: Path) -> None:
    assert examine(kind, sound) == "accepted"


def test_a_result_or_a_documented_error(kind: Kind, sound: Path) -> None:
    assert outcomes(kind, sound, range(60)) <= {"accepted", "refused"}


@pytest.mark.slow
def test_a_result_or_a_documented_error_at_length(kind: Kind, sound: Path) -> None:
    assert outcomes(kind, sound, range(1000, 1400)) <= {"accepted", "refused"}


def test_another_exception_would_be_seen(tmp_path: Path) -> None:
    kind = Kind(lambda f: None, "x", lambda f: [][1], (ValueError,))
    assert examine(kind, tmp_path).startswith("IndexError")
