"""Programs that are exported compute what the model does, or are not written."""

from __future__ import annotations

import zipfile

import pytest
import torch
from torch import nn

import optiprune.export.agreement as agreement
from optiprune.export import ExportError, export_onnx, export_program
from optiprune.masks import MaskError, MaskSet


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 8, 3, padding=1)
            self.norm = nn.BatchNorm2d(8)
            self.drop = nn.Dropout(0.5)
            self.fc = nn.Linear(8, 4)

    def forward(self, x, bias=None):
        x = self.drop(self.norm(self.conv(x)).relu()).mean((2, 3))
        out = self.fc(x)
        return {"logits": out if bias is None else out + bias, "features": x}


def masked(model=None) -> tuple[nn.Module, MaskSet]:
    model = model or Net()
    g = torch.Generator().manual_seed(1)
    named = [(n, p) for n, p in model.named_parameters() if p.ndim > 1]
    masks = MaskSet({n: torch.rand(p.shape, generator=g) < 0.4 for n, p in named})
    masks.apply(model).make_permanent()
    return model, masks


def images(n=3):
    return torch.randn(n, 3, 6, 6, generator=torch.Generator().manual_seed(2))


@pytest.fixture(params=["torch-export", "onnx"])
def export(request):
    if request.param == "torch-export":
        return export_program
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    return export_onnx


def test_a_program_agrees_on_batches_of_other_sizes(tmp_path, export):
    model, masks = masked()
    model.train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    found = export(model, masks, tmp_path / "m.bin", (images(),))
    assert found.error <= 1e-5
    assert found.batches == (1, 3, 4)
    assert model.training
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert [p.name for p in tmp_path.iterdir()] == ["m.bin"]


def test_one_sample_is_enough_for_a_free_batch(tmp_path, export):
    model, masks = masked()
    assert export(model, masks, tmp_path / "m.bin", (images(1),)).batches == (1, 3)


def test_inputs_by_keyword_and_a_fixed_batch(tmp_path, export):
    model, masks = masked()
    inputs = {"x": images(), "bias": torch.arange(12.0).reshape(3, 4)}
    assert export(model, masks, tmp_path / "m.bin", kwargs=inputs).batches == (1, 3, 4)
    fixed = export(model, masks, tmp_path / "f.bin", kwargs=inputs, dynamic_batch=False)
    assert fixed.batches == (3,)


def test_a_program_that_computes_something_else_is_not_written(tmp_path, export, monkeypatch):
    model, masks = masked()
    path = tmp_path / "m.bin"
    path.write_bytes(b"an earlier file")
    flat = agreement.tree_leaves
    # what the program gives is looked at through the same function: only the model's is changed
    monkeypatch.setattr(
        agreement,
        "tree_leaves",
        lambda x: [t * 1.01 for t in flat(x)] if isinstance(x, dict) else flat(x),
    )
    with pytest.raises(ExportError, match=r"differ by 0\.0099 of their size on a batch of 1"):
        export(model, masks, path, (images(),))
    assert path.read_bytes() == b"an earlier file"
    assert len(list(tmp_path.iterdir())) == 1


def test_refusals(tmp_path, export):
    model, masks = masked()

    def refused(text, *args, model=model, masks=masks, error=ExportError, **options):
        with pytest.raises(error, match=text):
            export(model, masks, tmp_path / "m.bin", args, **options)
        assert list(tmp_path.iterdir()) == []

    refused(r"not zero at \d+ of \d+ pruned weights", images(), model=Net())
    other = MaskSet({"fc.wait": torch.ones(4, 8, dtype=torch.bool)})
    refused("did you mean 'fc.weight'", images(), masks=other, error=MaskError)
    refused("hold no tensor with a batch dimension")
    refused("cannot trace Net", torch.randn(3, 5, 6, 6))

    class Branching(nn.Linear):
        def forward(self, x):
            return super().forward(x) if x.sum() > 0 else x

    branching, own = masked(Branching(4, 4))
    refused("cannot trace Branching", torch.ones(3, 4), model=branching, masks=own)


def test_a_batch_that_the_model_fixes_is_told(tmp_path, export):
    class Fixed(nn.Linear):
        def forward(self, x):
            return super().forward(x).reshape(3, 2, 2)

    model, masks = masked(Fixed(4, 4))
    with pytest.raises(ExportError, match=r"dynamic_batch = False fixes the size of the batch"):
        export(model, masks, tmp_path / "m.bin", (torch.ones(3, 4),))
    assert export(
        model, masks, tmp_path / "m.bin", (torch.ones(3, 4),), dynamic_batch=False
    ).batches == (3,)


def test_no_inputs_of_users_and_no_pickled_weights_are_stored(tmp_path):
    model, masks = masked()
    secret = images() * 0 + 1234.5
    export_program(model, masks, tmp_path / "m.pt2", (secret,))
    with zipfile.ZipFile(tmp_path / "m.pt2") as z:
        contents = {n: z.read(n) for n in z.namelist()}
    assert not any(secret[0].numpy().tobytes() in c for c in contents.values())
    (weights,) = (c for n, c in contents.items() if n.endswith("weights_config.json"))
    assert b'"use_pickle": true' not in weights
    program = torch.export.load(tmp_path / "m.pt2")
    for name, mask in masks.items():
        assert not program.state_dict[name][~mask].any()


def test_zeros_are_in_the_onnx_file(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, masks = masked()
    export_onnx(model, masks, tmp_path / "m.onnx", (images(),))
    graph = onnx.load(tmp_path / "m.onnx").graph
    arrays = [onnx.numpy_helper.to_array(i) for i in graph.initializer]
    zeros = sum(int((a == 0).sum()) for a in arrays if a.ndim > 1)
    assert zeros == masks.total() - masks.count()


def test_onnx_needs_its_extra_and_the_cpu(tmp_path, monkeypatch):
    import sys

    model, masks = masked()
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"needs 'onnxscript'.*pip install 'optiprune\[onnx\]'"):
        export_onnx(model, masks, tmp_path / "m.onnx", (images(),))


def test_onnx_of_two_gib_is_refused_before_any_work(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    import optiprune.export.onnx_file as module

    model, masks = masked()
    monkeypatch.setattr(module, "_LIMIT", 1000)
    with pytest.raises(ExportError, match=r"has \d+ bytes, and one ONNX file holds less"):
        export_onnx(model, masks, tmp_path / "m.onnx", (images(),))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_language_model(tmp_path, export):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        use_cache=False,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(config)
    g = torch.Generator().manual_seed(1)
    masks = MaskSet(
        {
            n: torch.rand(p.shape, generator=g) < 0.5
            for n, p in model.named_parameters()
            if "proj" in n
        }
    )
    masks.apply(model).make_permanent()
    tokens = torch.randint(0, 64, (2, 8), generator=g)
    found = export(model, masks, tmp_path / "m.bin", kwargs={"input_ids": tokens})
    assert found.batches == (1, 2, 3)
