"""`optiprune bench quality` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from optiprune.cli import app
from optiprune.cli.checkout import from_checkout
from optiprune.cli.errors import InputError

MINE = """
[quality]
models = ["digits"]
densities = [0.5, "2:4"]
seeds = [0]
methods = ["mine", "magnitude", "chita"]
samples = 200

[quality.method.mine]
refit = false
objective = "global"
batches = {steps = 1, size = 32}
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bench", "quality", *map(str, arguments)])


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "quality.toml"
    path.write_text(MINE)
    return path


def test_list_shows_what_would_be_measured(config: Path) -> None:
    result = run("--config", config, "--list")
    assert result.exit_code == 0, result.output
    assert "digits: 64-64-64-10" in result.output
    assert "mine (mask): optiprune" in result.output
    assert "magnitude (mask): Han et al. 2015" in result.output
    assert "5 cells" in result.output  # CHITA has no patterns
    assert "10 cells" in run("--config", config, "--list", "--seeds", "1,2").output


def test_a_run_is_measured_reported_and_resumed(config: Path) -> None:
    arguments = ("--config", config, "--densities", "0.5", "--methods", "mine,magnitude")
    result = run(*arguments, "--no-plots")
    assert result.exit_code == 0, result.output
    assert "2/2 digits at 0.5 by magnitude, seed 0: accuracy" in result.output
    text = Path("quality-out/quality.md").read_text()
    assert "| `magnitude` |" in text
    assert "prune = {'objective': 'global', 'refit': False}" in text
    lines = Path("quality-out/journal.jsonl").read_text().splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["session", "cell", "cell"]
    again = run(*arguments)
    assert "1/" not in again.output
    assert len(Path("quality-out/journal.jsonl").read_text().splitlines()) == 3
    Path("quality-out/quality.md").unlink()
    assert run("--report-only").exit_code == 0
    assert Path("quality-out/quality.md").read_text() == text
    assert Path("quality-out/figures/digits-density.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--models", "nothing"), "no model 'nothing'; there are: lenet-300-100"),
        (("--methods", "nothing"), "no method 'nothing'"),
        (("--densities", "7"), "a density is a number between 0 and 1"),
        (("--seeds", "a"), "--seeds takes integers"),
        (("--seeds", "-1"), "seeds are integers >= 0"),
        (("--loss", "l2"), "loss must be one of"),
        (("--timeout", "0"), "timeout"),
        (("--methods", "chita", "--densities", "2:4"), "no method that was chosen can do"),
        (("--report-only", "--out", "empty"), "holds no results of the quality benchmark"),
        (("--config", "missing.toml"), "cannot read missing.toml"),
    ],
)
def test_bad_input_is_named(config: Path, arguments: tuple[str, ...], words: str) -> None:
    models = () if "--models" in arguments else ("--models", "digits")
    result = run(*models, *arguments)
    assert result.exit_code == 2
    assert words in result.output


def test_an_unknown_key_of_the_table_is_named(config: Path) -> None:
    config.write_text("[quality]\nmodel = 'digits'\n")
    result = run("--config", config)
    assert result.exit_code == 2
    assert "did you mean 'models'?" in result.output
    config.write_text("[other]\n")
    assert "no table [quality]" in run("--config", config).output


def test_outside_the_repository_the_way_to_it_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"git clone.*pip install -e"):
        from_checkout("benchmarks.quality.report", root=tmp_path)


def test_another_package_called_benchmarks_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "benchmarks" / "quality").mkdir(parents=True)
    (tmp_path / "benchmarks" / "quality" / "__init__.py").touch()
    from_checkout("benchmarks.quality.report")  # the real one is loaded now
    with pytest.raises(InputError, match="another package called 'benchmarks'"):
        from_checkout("benchmarks.quality.report", root=tmp_path)
