"""`optiprune config`, the run file and its template."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from optiprune.cli import app
from optiprune.cli.config import REQUIRED_EXAMPLES
from optiprune.cli.run_config import RunConfig, load_run_config
from optiprune.cli.template import template
from optiprune.cli.toml_text import toml_text
from optiprune.config import Config, ConfigError, explain, read_toml

MINIMAL = '[model]\nfactory = "m.py:load"\n[data]\ncalibration = "m.py:batches"\n'


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "400"})


def test_explain_lists_every_option_with_a_meaning() -> None:
    result = run("config", "--explain")
    assert result.exit_code == 0, result.output
    for key, _, default, meaning in explain(RunConfig):
        assert meaning, f"{key} has no description"
        rows = [line.lstrip("│ ") for line in result.output.splitlines()]
        row = next(line for line in rows if line.startswith(f"{key} "))
        assert default in row


def test_run_config_holds_all_of_the_engine_config() -> None:
    keys = [row[0] for row in explain(RunConfig)]
    assert [k for k in keys if k in {row[0] for row in explain(Config)}] == [
        row[0] for row in explain(Config)
    ]
    assert {"model.factory", "data.calibration", "output.dir"} <= set(keys)


def test_template_is_complete_and_means_the_defaults(tmp_path: Path) -> None:
    result = run("config", "--template")
    assert result.exit_code == 0, result.output
    path = tmp_path / "run.toml"
    path.write_text(result.stdout)
    (tmp_path / "minimal.toml").write_text(
        '[model]\nfactory = "my_model.py:load"\n[data]\ncalibration = "my_model.py:calibration"\n'
    )
    assert load_run_config(path) == load_run_config(tmp_path / "minimal.toml")
    for key, *_ in explain(RunConfig):
        name = key.rpartition(".")[2]
        lines = result.stdout.splitlines()
        shown = [x for x in lines if x.startswith((f"{name} =", f"# {name} =", f"[{name}]"))]
        assert shown, f"the template lacks {key}"


def test_validates_a_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(template(RunConfig, REQUIRED_EXAMPLES))
    result = run("config", path)
    assert result.exit_code == 0, result.output
    assert "is valid" in result.output


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (MINIMAL + "[prune]\nsparsty = 0.9\n", "did you mean 'sparsity'?"),
        (MINIMAL + "[prune]\nsparsity = 1.0\n", "prune.sparsity"),
        (MINIMAL + "[output]\nmasks = 'a/b'\n", "output.masks: must be a plain file name"),
        (MINIMAL + "[outputs]\ndir = 'x'\n", "did you mean 'output'?"),
        (MINIMAL + "[solver]\nname = 'tabbu'\n", "did you mean 'tabu'?"),
        (MINIMAL + "[solver]\nname = 'annealing'\nsweps = 3\n", "did you mean 'sweeps'?"),
        ('[model]\nfactory = "load"\n[data]\ncalibration = "m.py:b"\n', "'file.py:function'"),
        ('[model]\nfactory = "m.py:load"\n', "data: field required"),
        ("[model\n", "line 1"),
    ],
)
def test_refuses_with_a_reason(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    result = run("config", path)
    assert result.exit_code == 2, result.output
    assert complaint in result.stderr
    assert "run.toml" in result.stderr or "solver" in result.stderr


def test_exactly_one_thing_to_do(tmp_path: Path) -> None:
    assert run("config").exit_code == 2
    assert run("config", "--explain", "--template").exit_code == 2


def test_changes_from_the_command_line_win_and_are_validated(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(MINIMAL + "[prune]\nsparsity = 0.5\nrefit = false\n")
    changed = load_run_config(path, {"prune.sparsity": 0.9, "seed": 4})
    assert (changed.prune.sparsity, changed.prune.refit, changed.seed) == (0.9, False, 4)
    with pytest.raises(ConfigError, match="sparsity"):
        load_run_config(path, {"prune.sparsity": 1.5})
    (tmp_path / "odd.toml").write_text('prune = 3\n[model]\nfactory = "m:f"\n')
    with pytest.raises(ConfigError, match="'prune' must be a table, got 3"):
        load_run_config(tmp_path / "odd.toml", {"prune.sparsity": 0.5})


def test_engine_config_is_the_same_without_the_run(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(MINIMAL + "[batches]\nsize = 99\n[solver]\nname = 'tabu'\n")
    config = load_run_config(path).engine_config()
    assert type(config) is Config
    assert config == Config.from_table({"batches": {"size": 99}, "solver": {"name": "tabu"}})


_texts = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\r"), max_size=12
)
_scalars = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    _texts,
)
_flat = st.dictionaries(_texts, st.one_of(_scalars, st.lists(_scalars, max_size=3)), max_size=4)


@settings(max_examples=150, deadline=None)
@given(table=st.dictionaries(_texts, st.one_of(_scalars, _flat), max_size=4))
def test_toml_text_reads_back(tmp_path_factory: pytest.TempPathFactory, table: dict) -> None:
    path = tmp_path_factory.mktemp("toml") / "t.toml"
    path.write_bytes(toml_text(table).encode())
    assert read_toml(path) == table


def test_toml_text_leaves_out_none_and_refuses_objects() -> None:
    assert toml_text({"a": None, "s": {"b": None, "c": 1}}) == "\n[s]\nc = 1\n"
    with pytest.raises(TypeError, match="complex"):
        toml_text({"a": 1j})
