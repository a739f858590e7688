"""What a model directory is refused for, before anything is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from optiprune import prune_pretrained
from optiprune.config import ConfigError
from optiprune.curvature import CalibrationError
from optiprune.curvature.layers import LayerError
from optiprune.offload import ModelDirectoryError, context_length, skeleton
from optiprune.offload.checkpoint import Checkpoint
from optiprune.offload.skeleton import open_skeleton

from .conftest import SMALL, Make, load, transformers


def refused(source: Path, data, message: str, error=ModelDirectoryError, **options) -> None:
    out = source.parent / "out"
    with pytest.raises(error, match=message):
        prune_pretrained(source, out, data, **{"sparsity": 0.5, "progress": False, **options})
    assert not out.exists()


def test_what_is_no_model(make: Make, windows, tmp_path: Path) -> None:
    refused(tmp_path / "none", windows, "there is no directory")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(empty, windows, r"no config\.json")
    source = make("llama")
    (source / "config.json").write_text("{")
    refused(source, windows, "config")
    (source / "config.json").write_text('{"model_type": "no-such-model"}')
    refused(source, windows, "no-such-model")


def test_pickled_weights_are_never_loaded(make: Make, windows) -> None:
    source = make("llama")
    torch.save(load_file(source / "model.safetensors"), source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    refused(source, windows, "never loaded")


@pytest.mark.parametrize("cut", [4, 200, -50])
def test_a_damaged_file_is_named(cut: int, make: Make, windows) -> None:
    source = make("llama")
    path = source / "model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    refused(source, windows, r"model\.safetensors is missing or damaged")


def test_a_shard_that_is_gone_or_lies_elsewhere(make: Make, windows) -> None:
    source = make("llama", torch.float32, "20KB")
    index = source / "model.safetensors.index.json"
    table = json.loads(index.read_text())
    for name in ("../model-00001-of-00006.safetensors", "/etc/passwd", "pytorch_model.bin", 3):
        changed = {**table, "weight_map": {**table["weight_map"], "model.norm.weight": name}}
        index.write_text(json.dumps(changed))
        refused(source, windows, "plain names of safetensors files")
    index.write_text(json.dumps(table))
    sorted(source.glob("model-*.safetensors"))[1].unlink()
    refused(source, windows, "missing or damaged")


def changed(source: Path, change) -> None:
    path = source / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def test_weights_that_do_not_fit(make: Make, windows) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    source = make("llama")
    changed(source, lambda t: t.pop(name))
    refused(source, windows, "has no weights for 1 parameters.*up_proj")
    changed(source, lambda t: t.update({name: torch.zeros(3, 3)}))
    refused(source, windows, r"has shape \(3, 3\)")
    changed(source, lambda t: t.update({name: torch.zeros(48, 32, dtype=torch.int8)}))
    refused(source, windows, "quantised")


def test_weights_that_are_not_finite(make: Make, windows) -> None:
    source = make("llama")
    name = "model.layers.1.mlp.up_proj.weight"
    changed(source, lambda t: t[name].fill_(float("nan")))
    with pytest.raises(Exception, match=r"NaN|finite"):
        prune_pretrained(source, source.parent / "out", windows, sparsity=0.5, progress=False)
    assert not (source.parent / "out").exists()


def test_code_of_a_directory_is_not_run(make: Make, windows) -> None:
    source = make("llama")
    marker = source / "ran"
    (source / "own.py").write_text(f"open({str(marker)!r}, 'w')\n")
    config = json.loads((source / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
    (source / "config.json").write_text(json.dumps(config))
    refused(source, windows, "trust_remote_code")
    assert not marker.exists()


def test_places_to_write_to(make: Make, windows, tmp_path: Path) -> None:
    source = make("llama")
    with pytest.raises(ModelDirectoryError, match="own directory"):
        prune_pretrained(source, source, windows, sparsity=0.5)
    out = tmp_path / "there"
    out.mkdir()
    (out / "model.safetensors").write_bytes(b"mine")
    with pytest.raises(ModelDirectoryError, match="holds a model already"):
        prune_pretrained(source, out, windows, sparsity=0.5)
    assert (out / "model.safetensors").read_bytes() == b"mine"
    prune_pretrained(source, out, windows, sparsity=0.5, progress=False, force=True)
    assert not (out / "model.safetensors").exists()
    assert float((load(out).model.layers[0].mlp.up_proj.weight == 0).float().mean()) == 0.5


def test_data_that_are_no_tokens(make: Make) -> None:
    source = make("llama")
    refused(source, [], "no calibration data", CalibrationError)
    refused(source, [torch.zeros(4, 16)], "token ids", CalibrationError)
    refused(source, [torch.zeros(16, dtype=torch.int64)], "token ids", CalibrationError)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.full((4, 16), 97), "the model knows 0 to 96"),
        (torch.full((4, 16), -1), "the model knows 0 to 96"),
        (torch.ones(4, 65, dtype=torch.int64), "takes 64 at most"),
        (torch.ones(4, 16, dtype=torch.bool), "token ids"),
        (torch.ones(4, 0, dtype=torch.int64), "token ids"),
        ({"attention_mask": torch.ones(4, 16, dtype=torch.int64)}, "no input_ids"),
    ],
)
def test_tokens_that_the_model_cannot_be_run_on(data, message: str, make: Make) -> None:
    refused(make("gpt2"), [data], message, CalibrationError)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "nowhere"}, "device = 'nowhere'"),
        ({"activations": "disc"}, "'memory' or 'disk'"),
        ({"expert_tokens": 0}, "1 or more"),
    ],
)
def test_arguments_that_are_none(options, message: str, make: Make, windows) -> None:
    refused(make("llama"), windows, message, ConfigError, **options)


def test_other_families_and_their_names(make: Make) -> None:
    config = transformers.GPTNeoXConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
    )
    folder = make("llama").with_name("neox")
    transformers.GPTNeoXForCausalLM(config).save_pretrained(folder)
    assert len(open_skeleton(folder).linear_layers()) == 8


class Plain(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + (0.0 if self.bias is None else self.bias)


class Halved(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(0.5 * x)


class Turned(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.roll(1, -1))


class Steps(Plain):
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("steps", torch.zeros(1))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("kind", "plain"), [(Plain, True), (Halved, False), (Turned, False), (Steps, False)]
)
def test_classes_that_only_multiply_are_linear_layers(kind, plain: bool, bias: bool) -> None:
    model = nn.Sequential(nn.Linear(5, 7), kind(7, 3, bias=bias, device="meta"))
    assert skeleton._plain_linear(model, nn.Bilinear) == set()
    assert type(model[1]) is (nn.Linear if plain else kind)
    assert (model[1].weight.shape, model[1].bias is None) == ((3, 7), not bias)


def test_routers_are_no_layers(make: Make) -> None:
    config = transformers.Qwen2MoeConfig(
        **SMALL,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=24,
        shared_expert_intermediate_size=24,
    )
    folder = make("llama").with_name("qwen2")
    transformers.Qwen2MoeForCausalLM(config).save_pretrained(folder)
    names = open_skeleton(folder).linear_layers()
    assert "model.layers.0.mlp.shared_expert.gate_proj" in names
    assert not [n for n in names if n.endswith("shared_expert_gate")]


def test_patterns_that_match_nothing(make: Make, windows) -> None:
    source = make("llama")
    refused(source, windows, "matches no layer", LayerError, include=["model.layer.*"])
    refused(source, windows, "no Linear layer", LayerError, exclude=["*"])


def test_headers_alone_are_read_at_first(make: Make, monkeypatch) -> None:
    source = make("llama", torch.float16)
    monkeypatch.setattr(Checkpoint, "read", lambda *a: pytest.fail("a tensor was read"))
    opened = open_skeleton(source)
    assert all(p.is_meta for p in opened.model.parameters())
    assert context_length(source) == 64


def test_rotary_frequencies_are_those_of_transformers(make: Make) -> None:
    source = make("llama")
    own = open_skeleton(source).model.model.rotary_emb
    assert torch.equal(own.inv_freq, load(source).model.rotary_emb.inv_freq)
