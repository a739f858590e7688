"""`optiprune prune --model DIR`: from a directory and a text to a directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from optiprune.cli import app

transformers = pytest.importorskip("transformers")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small Llama with a tokenizer of words, and a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    config = transformers.LlamaConfig(
        vocab_size=60,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        bos_token_id=1,
        eos_token_id=2,
    )
    folder = tmp_path / "dense"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    words = {f"w{i}": i for i in range(60)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="w2")
    fast.save_pretrained(folder)
    draw = torch.Generator().manual_seed(0)
    text = " ".join(f"w{int(i)}" for i in torch.randint(3, 60, (800,), generator=draw))
    (tmp_path / "text.jsonl").write_text(json.dumps({"text": text}) + "\n")
    return folder


def run(*args: object):
    return CliRunner().invoke(app, ["prune", *map(str, args)])


def options(source: Path) -> list[object]:
    text = source.parent / "text.jsonl"
    return ["--model", source, "--data", text, "--samples", 16, "--length", 16]


def test_a_directory_becomes_a_directory_that_transformers_loads(source: Path) -> None:
    out = source.parent / "out"
    done = run(*options(source), "--out", out, "--sparsity", 0.5, "--seed", 2)
    assert done.exit_code == 0, done.output
    model = transformers.AutoModelForCausalLM.from_pretrained(out, local_files_only=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out, local_files_only=True)
    text = model.generate(**tokenizer("w5 w9", return_tensors="pt"), max_new_tokens=4)
    assert text.shape == (1, 6)
    assert float((model.model.layers[1].mlp.up_proj.weight == 0).float().mean()) == 0.5
    summary = json.loads((out / "summary.json").read_text())
    assert summary["report"]["density"] == pytest.approx(0.5, abs=1e-3)
    assert len(summary["report"]["layers"]) == 14
    assert not (out / "unfinished").exists()
    assert (out / "history.jsonl").read_text().count("\n") == summary["report"]["steps"]
    again = CliRunner().invoke(app, ["prune", str(out / "config.toml"), "--dry-run"])
    assert again.exit_code == 0, again.output
    third = run(*options(source), "--out", out)
    assert third.exit_code == 2
    assert "--force" in third.output


def test_a_plan_shows_layers_and_memory_and_writes_nothing(source: Path) -> None:
    out = source.parent / "out"
    done = run(*options(source), "--out", out, "--dry-run")
    assert done.exit_code == 0, done.output
    assert "2 x model.layers.*.mlp.up_proj" in done.output
    assert "together" in done.output
    assert not out.exists()


def test_a_run_that_was_stopped_is_resumed(source: Path, monkeypatch) -> None:
    from optiprune.offload.run import OffloadRun

    whole, out = source.parent / "whole", source.parent / "out"
    assert run(*options(source), "--out", whole).exit_code == 0
    plain = OffloadRun._block

    def stops(self, number, *args):
        if number == 1:
            raise KeyboardInterrupt
        return plain(self, number, *args)

    with monkeypatch.context() as patch:
        patch.setattr(OffloadRun, "_block", stops)
        stopped = run(*options(source), "--out", out)
    assert stopped.exit_code == 130
    assert f"optiprune resume {out}" in stopped.output
    done = CliRunner().invoke(app, ["resume", str(out)])
    assert done.exit_code == 0, done.output
    loaded = [
        transformers.AutoModelForCausalLM.from_pretrained(f, local_files_only=True)
        for f in (whole, out)
    ]
    one, two = (m.state_dict() for m in loaded)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not (out / "unfinished-model").exists()


def test_a_model_that_lies_there_is_not_replaced_without_force(source: Path) -> None:
    out = source.parent / "out"
    out.mkdir()
    (out / "model.safetensors").write_bytes(b"mine")
    refused = run(*options(source), "--out", out)
    assert refused.exit_code == 2, refused.output
    assert (out / "model.safetensors").read_bytes() == b"mine"
    assert not (out / "unfinished").exists()
    assert run(*options(source), "--out", out, "--force").exit_code == 0
    assert not (out / "model.safetensors").exists()


def test_a_solver_that_fails_leaves_the_steps_before_it(source: Path, monkeypatch) -> None:
    from optiprune.engine.errors import StepFailedError
    from optiprune.engine.layer_decision import LayerDecision

    plain = LayerDecision.run

    def fails(self):
        if self.layer.name == "model.layers.1.mlp.up_proj":
            raise StepFailedError("the solver gave up")
        return plain(self)

    out = source.parent / "out"
    with monkeypatch.context() as patch:
        patch.setattr(LayerDecision, "run", fails)
        failed = run(*options(source), "--out", out)
    assert failed.exit_code == 1
    assert "the solver gave up" in failed.output
    assert f"optiprune resume {out}" in failed.output
    assert CliRunner().invoke(app, ["resume", str(out)]).exit_code == 0


def test_bad_input_is_told_before_any_work(source: Path) -> None:
    out = source.parent / "out"
    for args, message in [
        (["--model", source], "give a run file, or --model DIR"),
        ([*options(source)[:3], source / "none.txt", "--out", out], "there is no file"),
        ([*options(source), "--out", out, "--length", 64], "32 tokens at most"),
        ([*options(source), "--out", out, "--samples", 4000], "give more text"),
        (["--model", source / "x", *options(source)[2:], "--out", out], "there is no directory"),
        ([*options(source), "--out", source], "must be another directory"),
    ]:
        done = run(*args)
        assert done.exit_code == 2, done.output
        assert message in done.output.replace("\n", " "), done.output
        assert not out.exists()
