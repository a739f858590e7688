"""Masks read one at a time are those of the file, and as well checked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from optiprune.masks import MaskFileError, MaskReader, MaskSet


@pytest.fixture
def path(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    masks = {n: torch.rand(5, 7, generator=generator) < 0.4 for n in ("b", "a")}
    MaskSet(masks).save(tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def test_one_at_a_time(path: Path) -> None:
    whole = MaskSet.load(path)
    with MaskReader.open(path) as reader:
        assert reader.names == ("b", "a")
        assert all(torch.equal(reader.mask(n), whole[n]) for n in reader.names)
        with pytest.raises(KeyError):
            reader.mask("c")


def test_damage_is_found_when_the_mask_is_read(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1 << 5  # of the last mask in the file
    path.write_bytes(content)
    with MaskReader.open(path) as reader:
        faults = {}
        for name in reader.names:
            try:
                reader.mask(name)
            except MaskFileError as e:
                faults[name] = str(e)
    ((name, fault),) = faults.items()
    assert f"{name!r} is damaged" in fault


def test_what_is_no_mask_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), MaskReader.open(tmp_path / "no"):
        pass
    (tmp_path / "text").write_text("hello")
    with pytest.raises(MaskFileError, match="damaged"), MaskReader.open(tmp_path / "text"):
        pass
