"""`optiprune demo`: its baselines by hand-derived numbers, and the whole thing once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from optiprune.cli import app

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")


def network() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -4.0, 2.0, 0.5], [0.1, 0.2, -0.3, 0.4]]))
        model[2].weight.copy_(torch.tensor([[3.0, -0.6]]))
    return model


def test_magnitude_ranks_the_whole_network() -> None:
    from optiprune.cli.demo_methods import magnitude

    model = network()
    # 10 weights, half kept: 4, 3, 2, 1, 0.6
    magnitude(model, torch.ones(3, 4), 0.5)
    assert model[0].weight.tolist() == [[1.0, -4.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    torch.testing.assert_close(model[2].weight.detach(), torch.tensor([[3.0, -0.6]]))


def test_wanda_ranks_each_row_by_weight_times_input_norm() -> None:
    from optiprune.cli.demo_methods import wanda

    model = network()
    x = torch.tensor([[10.0, 0.0, 1.0, 3.0]])
    # row 0: 10, 0, 2, 1.5; row 1: 1, 0, 0.3, 1.2; two of each row are kept
    wanda(model, x, 0.5)
    expected = torch.tensor([[1.0, 0.0, 2.0, 0.0], [0.1, 0.0, 0.0, 0.4]])
    torch.testing.assert_close(model[0].weight.detach(), expected)
    # the dense hidden units are 13.5 and 2.5: 3 * 13.5 beats 0.6 * 2.5
    torch.testing.assert_close(model[2].weight.detach(), torch.tensor([[3.0, 0.0]]))


def test_training_leaves_the_global_random_state() -> None:
    from optiprune.cli.demo_methods import Digits, train

    digits = Digits.load(0)
    torch.manual_seed(123)
    before = torch.get_rng_state()
    first = train(digits, seed=1, epochs=1)
    assert torch.equal(before, torch.get_rng_state())
    second = train(digits, seed=1, epochs=1)
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))


def test_demo(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    result = CliRunner().invoke(app, ["demo", "--out", str(out)], env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output + result.stderr
    rows = {row["name"]: row for row in json.loads((out / "demo.json").read_text())}
    assert list(rows) == ["dense", "magnitude", "Wanda", "ours, mask only", "ours, with refit"]
    for name, row in rows.items():
        assert name in result.output
        if name != "dense":
            assert row["density"] == pytest.approx(0.1, abs=0.01)
    assert rows["dense"]["accuracy"] > 0.95
    for ours in ("ours, mask only", "ours, with refit"):
        assert rows[ours]["loss"] < rows["magnitude"]["loss"]
        assert rows[ours]["loss"] < rows["Wanda"]["loss"]
        assert rows[ours]["accuracy"] > rows["magnitude"]["accuracy"]
    png = (out / "demo.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(png) > 10_000


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(["--sparsity", "1"], "between 0 and 1"), (["--seed", "-1"], "--seed must be >= 0")],
)
def test_bad_arguments(arguments: list[str], complaint: str) -> None:
    result = CliRunner().invoke(app, ["demo", *arguments])
    assert result.exit_code == 2
    assert complaint in result.stderr


def test_missing_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "sklearn" else real(name, *rest),
    )
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "o")])
    assert result.exit_code == 2
    assert "pip install 'optiprune[demo]'" in result.stderr
    assert not (tmp_path / "o").exists()
