"""What a config, a mask file or a journal says cannot make a run write outside its folder."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from optiprune.bench.errors import BenchError
from optiprune.bench.records import journal as bench_journal
from optiprune.cli import app
from optiprune.cli.run_config import OutputSection
from optiprune.config import ConfigError, validate
from optiprune.durable import Journal, JournalError, locked
from optiprune.masks import MaskSet

MODEL = """
import torch


def load():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))


def batches():
    return [torch.randn(32, 6, generator=torch.Generator().manual_seed(1))]
"""
RUN = """
preset = "fast"
[model]
factory = "model.py:load"
[data]
calibration = "model.py:batches"
[prune]
sparsity = 0.5
"""

BAD_NAMES = [
    *("", ".", "..", "../x", "/etc/x", "a/b", "a\\b", "..\\x", "C:x", "a\0b", "a\nb", "\ud800"),
    *("unfinished", ".lock", "x" * 300),
]


@pytest.mark.parametrize("key", ["masks", "model", "history"])
@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_of_outputs_are_plain(key: str, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}: "):
        validate(OutputSection, {key: name})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "model.py").write_text(MODEL)
    (folder / "run.toml").write_text(RUN)
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder with files that a run must not touch."""
    folder = tmp_path / "elsewhere"
    (folder / "steps").mkdir(parents=True)
    for name in ("config.toml", "folder.txt", "masks.safetensors", "journal.jsonl", "steps/1.bin"):
        (folder / name).write_text("precious")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_links_in_the_folder_of_a_run_are_replaced_and_not_followed(
    project: Path, elsewhere: Path
) -> None:
    before = contents(elsewhere)
    out = project / "out"
    out.mkdir()
    for name in ("masks.safetensors", "config.toml"):
        (out / name).symlink_to(elsewhere / name)
    arguments = ["prune", str(project / "run.toml"), "--out", str(out), "--force"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output + done.stderr
    assert contents(elsewhere) == before
    assert not (out / "masks.safetensors").is_symlink()
    assert MaskSet.load(out / "masks.safetensors").density() == pytest.approx(0.5)


def test_the_steps_of_a_run_are_not_written_through_a_link(project: Path, elsewhere: Path) -> None:
    before = contents(elsewhere)
    out = project / "out"
    out.mkdir()
    (out / "unfinished").symlink_to(elsewhere)
    arguments = ["prune", str(project / "run.toml"), "--out", str(out), "--force"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert "is a link" in done.stderr
    assert contents(elsewhere) == before


@pytest.mark.parametrize("name", ["journal.jsonl", "steps"])
def test_a_journal_follows_no_link(tmp_path: Path, elsewhere: Path, name: str) -> None:
    before = contents(elsewhere)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / name).symlink_to(elsewhere / name)
    with pytest.raises(JournalError, match="is a link"):
        Journal(folder)
    assert contents(elsewhere) == before


def test_a_journal_of_the_bench_follows_no_link(tmp_path: Path, elsewhere: Path) -> None:
    before = contents(elsewhere)
    folder = tmp_path / "bench"
    folder.mkdir()
    (folder / bench_journal.JOURNAL).symlink_to(elsewhere / "journal.jsonl")
    with pytest.raises(BenchError, match="is a link"):
        bench_journal.Journal(folder)
    assert contents(elsewhere) == before


def test_the_owner_of_a_lock_is_not_written_through_a_link(tmp_path: Path, elsewhere: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".lock.owner").symlink_to(elsewhere / "config.toml")
    with locked(folder):
        pass
    assert (elsewhere / "config.toml").read_text() == "precious"


def sealed(**table: object) -> str:
    """A line of a journal whose checksum fits."""
    check = hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()
    return json.dumps({**table, "check": check}) + "\n"


@pytest.mark.parametrize("key", ["../../elsewhere/config.toml", "/etc/passwd", "..", "a\0b"])
def test_keys_of_steps_are_no_paths(tmp_path: Path, elsewhere: Path, key: str) -> None:
    before = contents(elsewhere)
    folder = tmp_path / "run"
    journal = Journal(folder)
    journal.put(key, lambda path: path.write_bytes(b"step"))
    journal.put(key, lambda path: path.write_bytes(b"again"))
    path = journal.get(key)
    assert isinstance(path, Path)
    assert path.resolve().parent == (folder / "steps").resolve()
    assert contents(elsewhere) == before
    assert {p.parent.name for p in folder.rglob("*.bin")} == {"steps"}


@pytest.mark.parametrize("number", ["../../elsewhere/steps/1", -1, True, 10**30, 1.5, None, [1]])
def test_numbers_of_steps_are_no_paths(tmp_path: Path, elsewhere: Path, number: object) -> None:
    before = contents(elsewhere)
    folder = tmp_path / "run"
    folder.mkdir()
    whole = sealed(n=0, key="a", sha256=hashlib.sha256(b"x").hexdigest(), content="eA==")
    digest = hashlib.sha256(b"precious").hexdigest()
    (folder / "journal.jsonl").write_text(sealed(n=number, key="b", sha256=digest) + whole)
    with pytest.raises(JournalError, match="line 1, is damaged"):
        Journal(folder)
    repaired = Journal(folder, repair=True)
    assert not repaired.entries
    assert contents(elsewhere) == before


def test_contents_in_a_line_have_their_own_checksum(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    digest = hashlib.sha256(b"x").hexdigest()
    line = sealed(n=0, key="a", sha256=digest, content=base64.b64encode(b"y").decode())
    good = sealed(n=1, key="b", sha256=digest, content=base64.b64encode(b"x").decode())
    (folder / "journal.jsonl").write_text(line + good)
    with pytest.raises(JournalError, match="line 1, is damaged"):
        Journal(folder)


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a\\..\\b"])
def test_names_in_a_mask_file_are_no_paths(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    masks = MaskSet({name: torch.ones(2, 3, dtype=torch.bool)})
    masks.save(folder / "m.safetensors")
    assert list(MaskSet.load(folder / "m.safetensors")) == [name]
    files = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()]
    assert files == ["a/b/m.safetensors"]


def test_a_manifest_lists_files_of_its_own_folder_alone(tmp_path: Path) -> None:
    from optiprune.bench.instances import Selection, export_suite, folder_suite, suite

    folder = tmp_path / "set"
    instances = suite("generators", Selection(sizes=(16,), count=1, match="layer*"))
    export_suite(instances, folder, note=lambda _: None)
    manifest = json.loads((folder / "manifest.json").read_text())
    for file in manifest["instances"][0]["files"]:
        os.rename(folder / file["file"], tmp_path / Path(file["file"]).name)
        file["file"] = f"../{Path(file['file']).name}"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BenchError, match="is outside"):
        folder_suite(folder, lambda _: None)
