"""Whole runs over small model directories."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from optiprune import MaskSet, optimize_masks, prune_pretrained
from optiprune.config import ConfigError
from optiprune.engine.identity import RunMismatchError
from optiprune.engine.steps import JournalSteps
from optiprune.offload import ModelDirectoryError
from optiprune.offload.skeleton import Skeleton
from optiprune.planning import TooLargeError

from .conftest import CONFIGS, SMALL, Make, load, transformers

OPTIONS = {"sparsity": 0.5, "expert_tokens": 8, "progress": False}


def pruned(source: Path, data, **options):
    out = source.with_name(f"{source.name}-pruned")
    return prune_pretrained(source, out, data, **{**OPTIONS, **options})


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_half_of_every_layer_in_the_blocks_is_zero_and_the_rest_is_as_it_was(
    family: str, make: Make, windows
) -> None:
    source = make(family)
    result = pruned(source, windows)
    dense, model = load(source), load(result.folder)
    masks = MaskSet.load(result.folder / "masks.safetensors")
    before, after = dense.state_dict(), model.state_dict()
    assert result.report.density == pytest.approx(0.5, abs=1e-3)
    assert len(masks) >= 12
    for name, mask in masks.items():
        assert not after[name][~mask].any()
        assert float(mask.double().mean()) == pytest.approx(0.5, abs=0.01)
        assert not torch.equal(after[name][mask], before[name][mask])  # re-fitted
    for name in set(after) - set(masks):
        assert torch.equal(after[name], before[name])


@pytest.mark.parametrize("inputs", ["pruned", "dense"])
def test_masks_and_values_are_those_of_a_run_over_the_whole_model(
    inputs: str, make: Make, windows
) -> None:
    source = make("llama")
    config = {
        "curvature": {"inputs": inputs},
        "allocation": {"method": "uniform"},
        "tune": {"epochs": 0},
        "window": {"epochs": 1 if inputs == "pruned" else 0},
    }
    result = pruned(source, windows, config=config, seed=3)
    model = load(source)
    for p in model.parameters():
        p.requires_grad_(True)
    data = [{**batch, "use_cache": False} for batch in windows]
    whole = optimize_masks(
        model,
        data,
        sparsity=0.5,
        objective="reconstruction",
        include=["model.layers.*"],
        config=config,
        seed=3,
        progress=False,
    )
    ours = MaskSet.load(result.folder / "masks.safetensors")
    values = load(result.folder).state_dict()
    for name, mask in whole.masks.items():
        assert torch.equal(ours[name], mask), name
        assert torch.allclose(values[name], model.state_dict()[name], rtol=1e-4, atol=1e-6)


def test_short_types_and_shards_stay_what_they_are(make: Make, windows) -> None:
    source = make("llama", torch.bfloat16, "20KB")
    assert len(list(source.glob("model-*.safetensors"))) == 3
    result = pruned(source, windows)
    model = load(result.folder)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    index = json.loads((result.folder / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(p.numel() * 2 for p in load(source).parameters())
    assert float((model.model.layers[1].mlp.up_proj.weight == 0).float().mean()) == 0.5


def test_one_block_is_in_memory_at_a_time(make: Make, windows, monkeypatch) -> None:
    source, held = make("llama"), []
    plain = Skeleton._set

    def watched(self, name, value):
        plain(self, name, value)
        blocks = [
            block
            for block in self.blocks
            if any(not p.is_meta for p in self.block(block).parameters())
        ]
        held.append(len(blocks))

    monkeypatch.setattr(Skeleton, "_set", watched)
    pruned(source, windows)
    assert max(held) == 1


def test_activations_on_disk_give_the_same(make: Make, windows) -> None:
    source = make("llama")
    first = pruned(source, windows)
    second = prune_pretrained(
        source, source.with_name("disk"), windows, activations="disk", **OPTIONS
    )
    one, two = load(first.folder).state_dict(), load(second.folder).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    left = sorted(p.name for p in second.folder.iterdir())
    assert left == sorted(p.name for p in first.folder.iterdir())


def test_experts_that_saw_few_tokens_are_named_and_not_fitted(make: Make, windows) -> None:
    source = make("mixtral")
    result = pruned(source, windows, expert_tokens=100_000)
    dense, after = load(source).state_dict(), load(result.folder).state_dict()
    name = "model.layers.1.mlp.experts.down_proj"
    kept = after[name] != 0
    assert torch.equal(after[name][kept], dense[name][kept])
    least = dense[name][0].abs()[kept[0]].min()
    assert least >= dense[name][0].abs()[~kept[0]].max()  # by magnitude
    notes = [n for n in result.report.notes if "tokens, fewer than 100000" in n]
    assert len(notes) == 3 * 4 * 3


def test_a_run_that_was_stopped_goes_on_to_the_same_model(
    make: Make, windows, tmp_path: Path
) -> None:
    source = make("gpt2", torch.bfloat16)
    whole = prune_pretrained(source, tmp_path / "whole", windows, **OPTIONS)
    steps = tmp_path / "steps"
    calls = 0

    def stop(record) -> None:
        nonlocal calls
        calls += 1
        if calls > 6:
            raise KeyboardInterrupt

    out = tmp_path / "resumed"
    with pytest.raises(KeyboardInterrupt):
        prune_pretrained(source, out, windows, callback=stop, steps=steps, **OPTIONS)
    assert not (out / "model.safetensors.index.json").exists()
    with pytest.raises(RunMismatchError, match=r"prune was .*0\.5.* and is .*0\.6"):
        prune_pretrained(source, out, windows, steps=steps, **{**OPTIONS, "sparsity": 0.6})
    taken = []
    put = JournalSteps.put
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            JournalSteps, "put", lambda self, k, a, r: (taken.append(k), put(self, k, a, r))
        )
        again = prune_pretrained(source, out, windows, steps=steps, **OPTIONS)
    one, two = load(whole.folder).state_dict(), load(again.folder).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert again.report.layers == whole.report.layers
    assert "layer/transformer.h.0.attn.c_attn" not in taken  # it was there
    assert "layer/transformer.h.2.mlp.c_proj" in taken


def test_steps_of_other_weights_are_refused(make: Make, windows, tmp_path: Path) -> None:
    source = make("llama")
    prune_pretrained(source, tmp_path / "one", windows, steps=tmp_path / "steps", **OPTIONS)
    for change, message in [
        (lambda m: m.model.layers[1].mlp.up_proj.weight.data[0, 0].add_(1), r"model\.layers\.1"),
        (lambda m: m.model.embed_tokens.weight.data[0, 0].add_(1), "outside of the blocks"),
        (lambda m: m.to(torch.bfloat16), "the model's config"),
    ]:
        model = load(source)
        change(model)
        other = tmp_path / "other"
        model.save_pretrained(other)
        with pytest.raises(RunMismatchError, match=message):
            prune_pretrained(other, tmp_path / "two", windows, steps=tmp_path / "steps", **OPTIONS)
        assert not (tmp_path / "two" / "config.json").exists()


def test_a_damaged_shard_is_written_again(make: Make, windows, tmp_path: Path) -> None:
    source, steps = make("llama"), tmp_path / "steps"
    out = tmp_path / "out"

    def stop(record) -> None:
        if record.layers == ("model.layers.2.mlp.down_proj",):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune_pretrained(source, out, windows, steps=steps, callback=stop, **OPTIONS)
    parts = sorted((out / "unfinished-model").glob("part-*"))
    assert len(parts) == 2
    parts[0].write_bytes(parts[0].read_bytes()[:-1] + b"x")
    prune_pretrained(source, out, windows, steps=steps, **OPTIONS)
    whole = prune_pretrained(source, tmp_path / "whole", windows, **OPTIONS)
    one, two = load(out).state_dict(), load(whole.folder).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_block_that_needs_more_than_it_is_handed_is_refused(
    make: Make, windows, monkeypatch
) -> None:
    source = make("llama")
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    plain, memory = LlamaDecoderLayer.forward, []

    def forward(self, hidden_states, *args, **kwargs):
        if self.self_attn.layer_idx == 0:
            memory[:] = [hidden_states]
        elif memory and memory[0].shape == hidden_states.shape:
            hidden_states = hidden_states + memory.pop()  # of the embedding, once
        return plain(self, hidden_states, *args, **kwargs)

    monkeypatch.setattr(LlamaDecoderLayer, "forward", forward)
    with pytest.raises(ModelDirectoryError, match=r"layers\.\d' gives other outputs"):
        pruned(source, windows)
    assert not source.with_name("llama-dense-pruned").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": {"prune": {"objective": "global"}}}, "whole model and its gradients"),
        ({"config": {"prune": {"scope": "global"}}}, "scope = 'global'"),
        ({"config": {"allocation": {"method": "owl"}}}, "owl"),
        ({"config": {"tune": {"epochs": 2}}}, "window.epochs"),
        ({"config": {"initial": {"method": "gradient"}}}, "gradient"),
    ],
)
def test_options_that_need_the_whole_model_are_refused(
    options, message: str, make: Make, windows
) -> None:
    source = make("llama")
    with pytest.raises(ConfigError, match=message):
        pruned(source, windows, **options)
    assert not source.with_name("llama-dense-pruned").exists()


def test_a_run_that_would_not_fit_is_refused_with_the_numbers(
    make: Make, windows, monkeypatch
) -> None:
    source = make("llama")
    monkeypatch.setattr("optiprune.offload.api.available_bytes", lambda device: 1 << 16)
    with pytest.raises(TooLargeError, match=r"GiB are available"):
        pruned(source, windows)
    tuned = {"window": {"epochs": 1, "batch": 4096}, "curvature": {"chunk": 1}}
    with pytest.raises(TooLargeError, match="most of it is for tuning of a block"):
        pruned(source, windows, config=tuned)
    assert not source.with_name("llama-dense-pruned").exists()


def fused(source: Path, dtype: torch.dtype) -> None:
    """Store experts as transformers holds them, in two tensors."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(source / "model.safetensors")
    for name in [n for n in tensors if ".experts." in n]:
        del tensors[name]
    for name, value in load(source).state_dict().items():
        if ".experts." in name:
            tensors[name] = value.to(dtype).contiguous()
    save_file(tensors, source / "model.safetensors", {"format": "pt"})


def test_experts_that_are_stored_together_are_read_and_written_apart(make: Make, windows) -> None:
    source = make("qwen3_moe")
    apart = pruned(source, windows, config={"curvature": {"inputs": "dense"}})
    want = load(apart.folder).state_dict()
    fused(source, torch.float32)
    held = []
    plain = Skeleton.read

    def watched(self, name):
        value = plain(self, name)
        held.append(value.untyped_storage().nbytes() == value.numel() * value.element_size())
        return value

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Skeleton, "read", watched)
        together = prune_pretrained(
            source,
            source.with_name("together"),
            windows,
            config={"curvature": {"inputs": "dense"}},
            **OPTIONS,
        )
    assert all(held)  # no part keeps the tensor that it is of
    got = load(together.folder).state_dict()
    assert all(torch.equal(got[name], want[name]) for name in want)


def test_experts_that_are_excluded_stay_as_they_are(make: Make, windows) -> None:
    source = make("mixtral")
    result = pruned(source, windows, exclude=["*.experts.*"])
    dense, after = load(source).state_dict(), load(result.folder).state_dict()
    name = "model.layers.1.mlp.experts.down_proj"
    assert torch.equal(after[name], dense[name])
    assert len(result.report.layers) == 12


def test_a_failure_at_the_end_costs_neither_the_old_model_nor_the_work(
    make: Make, windows, tmp_path: Path, monkeypatch
) -> None:
    from optiprune.offload.output import ShardWriter

    source, out = make("llama"), tmp_path / "out"
    prune_pretrained(source, out, windows, **OPTIONS)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    again = {**OPTIONS, "sparsity": 0.6, "force": True, "steps": tmp_path / "steps"}

    def full(self) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "complete", full)
        with pytest.raises(OSError, match="No space"):
            prune_pretrained(source, out, windows, **again)
    assert {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()} == before
    done = prune_pretrained(source, out, windows, **again)
    assert done.report.density == pytest.approx(0.4, abs=0.01)
    assert not (out / "unfinished-model").exists()


def test_a_run_that_was_killed_while_its_files_were_moved_goes_on(
    make: Make, windows, tmp_path: Path, monkeypatch
) -> None:
    import os

    source, out = make("llama"), tmp_path / "out"
    moves = []
    plain = Path.replace

    def killed(self, target):
        moves.append(target)
        if len(moves) > 3 and "unfinished-model" in str(self):
            raise KeyboardInterrupt
        return plain(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            prune_pretrained(source, out, windows, steps=tmp_path / "steps", **OPTIONS)
    assert not (out / "model.safetensors.index.json").exists()
    done = prune_pretrained(source, out, windows, steps=tmp_path / "steps", **OPTIONS)
    whole = prune_pretrained(source, tmp_path / "whole", windows, **OPTIONS)
    one, two = load(done.folder).state_dict(), load(whole.folder).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert sorted(os.listdir(done.folder)) == sorted(os.listdir(whole.folder))


def test_a_second_run_into_the_same_place_harms_nothing(
    make: Make, windows, tmp_path: Path
) -> None:
    from optiprune.durable import LockedError, locked

    source, out = make("llama"), tmp_path / "out"
    (out / "unfinished-model").mkdir(parents=True)
    part = out / "unfinished-model" / "part-00000.safetensors"
    part.write_bytes(b"of the first")
    with locked(out), pytest.raises(LockedError):
        prune_pretrained(source, out, windows, **OPTIONS)
    assert part.read_bytes() == b"of the first"


def test_weights_that_are_in_no_layer_are_named(make: Make, windows) -> None:
    config = transformers.GptOssConfig(
        **SMALL, num_local_experts=4, num_experts_per_tok=2, head_dim=8, sliding_window=8
    )
    source = make("llama").with_name("oss")
    transformers.GptOssForCausalLM(config).save_pretrained(source)
    result = pruned(source, windows)
    notes = [n for n in result.report.notes if "is no layer that is known here" in n]
    assert len(notes) == 6
    assert "model.layers.0.mlp.experts.gate_up_proj (" in notes[0]


def test_float16_has_no_infinite_weights(make: Make, windows) -> None:
    source = make("gpt2", torch.float16)
    model = load(pruned(source, windows).folder)
    assert {p.dtype for p in model.parameters()} == {torch.float16}
    assert all(bool(p.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("inputs", ["dense", "pruned"])
def test_what_is_kept_on_disk_is_not_in_memory(
    inputs: str, make: Make, windows, monkeypatch
) -> None:
    from optiprune.curvature.activations import Activations
    from optiprune.offload.kept_calls import DiskKeep

    source, kept = make("llama"), []
    plain_keep, plain_leave = DiskKeep.__call__, Activations.leave

    def keep(self, calls):
        kept.append(plain_keep(self, calls))
        return kept[-1]

    def leave(self, *args):
        plain_leave(self, *args)
        assert any(self.dense is each for each in kept)
        assert not self._ahead

    monkeypatch.setattr(DiskKeep, "__call__", keep)
    monkeypatch.setattr(Activations, "leave", leave)
    pruned(source, windows, activations="disk", config={"curvature": {"inputs": inputs}})
    assert kept


def test_blocks_of_weights_leave_as_a_whole(make: Make, windows) -> None:
    result = pruned(make("llama"), windows, pattern="block:4x4")
    weight = load(result.folder).model.layers[1].mlp.up_proj.weight
    tiles = (weight != 0).unfold(0, 4, 4).unfold(1, 4, 4).flatten(2).sum(2)
    assert set(tiles.unique().tolist()) <= {0, 16}
    assert float((weight == 0).float().mean()) == pytest.approx(0.5, abs=0.01)


def test_a_pattern_and_exclusions(make: Make, windows) -> None:
    source = make("llama")
    result = pruned(
        source, windows, pattern="2:4", exclude=["*.self_attn.*", "model.layers.1.*"], sparsity=None
    )
    model = load(result.folder)
    dense = load(source)
    for i, layer in enumerate(model.model.layers):
        linear = {n: m for n, m in layer.named_modules() if isinstance(m, nn.Linear)}
        for name, module in linear.items():
            groups = (module.weight.reshape(-1, 4) != 0).sum(1)
            if i != 1 and name.startswith("mlp"):
                assert int(groups.max()) == 2
            else:
                own = dense.model.layers[i].get_submodule(name).weight
                assert torch.equal(module.weight, own)


@pytest.mark.slow
@pytest.mark.parametrize("inputs", ["pruned", "dense"])
def test_other_processes_decide_the_same(make: Make, windows, inputs: str, tmp_path: Path) -> None:
    source = make("llama", torch.bfloat16)
    config = {"threads": 1, "curvature": {"inputs": inputs}, "solver": {"name": "tabu"}}
    one = prune_pretrained(source, tmp_path / "one", windows, config=config, **OPTIONS)
    many = {**config, "workers": 2, "executor": "processes"}
    two = prune_pretrained(source, tmp_path / "two", windows, config=many, **OPTIONS)
    here, there = load(one.folder).state_dict(), load(two.folder).state_dict()
    assert all(torch.equal(here[name], there[name]) for name in here)
    assert [r.changed for r in one.history] == [r.changed for r in two.history]
