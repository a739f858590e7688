"""Mask files: bit-packed, checked against the dense model, never half read or half written."""

from __future__ import annotations

import json
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import optiprune
from optiprune.masks import MaskError, MaskFileError, MaskSet, read_mask_file, weight_hashes
from optiprune.masks.file import header_digest

T, F = True, False


def net(seed: int = 0) -> nn.Sequential:
    g = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(12, 5))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g))
    return model


def half(model: nn.Module) -> MaskSet:
    g = torch.Generator().manual_seed(1)
    names = ["0.weight", "2.weight"]
    shapes = [model.get_parameter(n).shape for n in names]
    return MaskSet(
        {n: torch.rand(s, generator=g) < 0.5 for n, s in zip(names, shapes, strict=True)}
    )


def rewrite(path, change):
    """Change what a mask file holds, as a careless or hostile program might."""
    with safe_open(path, framework="pt") as f:
        text = dict(f.metadata())
        tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118
    records = json.loads(text["parameters"])
    change(text, tensors, records)
    text["parameters"] = json.dumps(records)
    text["sha256"] = header_digest(text)
    save_file(tensors, path, metadata=text)


def test_round_trip_onto_the_dense_model(tmp_path):
    model, path = net(), tmp_path / "m.safetensors"
    masks = half(model)
    masks.save(path, model, config={"sparsity": 0.5, "include": ["*"]}, metadata={"note": "é"})
    loaded = MaskSet.load(path, model)
    assert loaded == masks
    assert list(loaded) == list(masks)
    assert dict(loaded.hashes) == weight_hashes(model, masks)
    content = read_mask_file(path)
    assert content.config == {"sparsity": 0.5, "include": ["*"]}
    assert content.metadata == {"note": "é"}
    assert content.version == optiprune.__version__
    assert os.listdir(tmp_path) == ["m.safetensors"]


def test_masks_take_one_bit_a_weight_first_in_the_highest_bit(tmp_path):
    path = tmp_path / "m.safetensors"
    MaskSet({"w": torch.tensor([[T, F, F, F, F], [F, F, T, T, F]])}).save(path)
    with safe_open(path, framework="pt") as f:
        assert f.get_tensor("mask:w").tolist() == [0b10000001, 0b10000000]
    size = 1_000_000
    MaskSet({"w": torch.ones(size, dtype=torch.bool)}).save(path)
    assert path.stat().st_size < size / 8 + 2000


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(0, 5), max_size=4),
    st.integers(0, 2**31 - 1),
    st.floats(0, 1),
    st.booleans(),
)
def test_any_shape_survives(tmp_path_factory, shape, seed, density, transposed):
    g = torch.Generator().manual_seed(seed)
    mask = torch.rand(shape, generator=g) < density
    values = torch.randn(shape, generator=g)
    if transposed:
        backwards = tuple(range(mask.ndim))[::-1]
        mask, values = mask.permute(backwards), values.permute(backwards)
    masks = MaskSet({"a.w": mask, "b": ~mask}, fitted={"a.w": values})
    path = tmp_path_factory.mktemp("any") / "m.safetensors"
    masks.save(path)
    loaded = MaskSet.load(path)
    assert loaded == masks
    assert torch.equal(loaded.fitted["a.w"], values.masked_fill(~mask, 0))
    assert list(loaded.fitted) == ["a.w"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_refitted_weights_come_back_bit_by_bit_and_only_kept_ones_are_stored(tmp_path, dtype):
    model, path = net().to(dtype), tmp_path / "m.safetensors"
    masks = half(model)
    values = {"2.weight": torch.randn(5, 12, generator=torch.Generator().manual_seed(3)).to(dtype)}
    masks.save(path, model, values=values)
    with safe_open(path, framework="pt") as f:
        assert f.get_tensor("values:2.weight").shape == (int(masks["2.weight"].sum()),)
    other = net().to(dtype)
    MaskSet.load(path, other).apply(other)
    masks.apply(model, values)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)
        assert p.dtype == dtype


def test_another_model_is_refused_by_the_name_of_the_parameter(tmp_path):
    model, path = net(), tmp_path / "m.safetensors"
    masks = half(model)
    masks.save(path, model)
    other = net()
    with torch.no_grad():
        other[2].weight[4, 11] = torch.nextafter(other[2].weight[4, 11], torch.tensor(9.0))
    with pytest.raises(MaskFileError, match=r"'2.weight' differs from the dense"):
        MaskSet.load(path, other)
    with pytest.raises(MaskFileError, match=r"'0.weight' differs"):
        MaskSet.load(path, net().half())
    assert MaskSet.load(path, other, allow_different_weights=True) == masks
    with pytest.raises(MaskError, match=r"no parameter '2.weight'"):
        MaskSet.load(path, other[:2], allow_different_weights=True)
    other[2] = nn.Linear(12, 4)
    with pytest.raises(MaskError, match=r"'2.weight' has shape \(4, 12\)"):
        MaskSet.load(path, other, allow_different_weights=True)
    # Only masked parameters are compared: a bias that was trained since is no obstacle.
    with torch.no_grad():
        model[2].bias.add_(1)
    assert MaskSet.load(path, model) == masks


def test_hashes_are_of_the_dense_weights_however_the_model_is_masked(tmp_path):
    path, dense = tmp_path / "m.safetensors", net()
    masks = half(dense)
    hashes = weight_hashes(dense, masks)

    model = net()
    handle = masks.apply(model)
    assert handle.hashes() == hashes
    masks.save(path, handle)
    assert MaskSet.load(path, dense) == masks
    with pytest.raises(MaskFileError, match="masked already"):
        MaskSet.load(path, model)

    path.unlink()
    with pytest.raises(MaskError, match="seems to be masked already"):
        masks.save(path, model)
    assert not path.exists()

    masks.with_hashes(hashes).save(path, model)
    assert MaskSet.load(path, dense) == masks

    model = net()
    masks.to_prune(model)
    masks.save(path, model)
    assert dict(MaskSet.load(path).hashes) == hashes
    assert dict(MaskSet.from_prune(model).hashes) == hashes


def test_a_sparse_checkpoint_can_be_hashed_on_demand(tmp_path):
    model, path = net(), tmp_path / "m.safetensors"
    half(model).make_permanent(model)
    masks = MaskSet.from_model(model)
    with pytest.raises(MaskError, match="seems to be masked already"):
        masks.save(path, model)
    masks.with_hashes(weight_hashes(model, masks)).save(path)
    assert MaskSet.load(path, model) == masks


def test_without_hashes_the_file_cannot_be_checked_and_says_so(tmp_path):
    model, path = net(), tmp_path / "m.safetensors"
    masks = half(model)
    masks.save(path)
    assert MaskSet.load(path) == masks
    with pytest.raises(MaskFileError, match=r"no hash of the dense weights of '0.weight'"):
        MaskSet.load(path, model)
    assert MaskSet.load(path, model, allow_different_weights=True) == masks


def test_hash_ignores_layout_but_not_dtype_or_shape():
    a = nn.Linear(3, 2, bias=False)
    b = nn.Linear(3, 2, bias=False)
    b.weight = nn.Parameter(a.weight.detach().t().contiguous().t())
    assert not b.weight.is_contiguous()
    assert weight_hashes(a, ["weight"]) == weight_hashes(b, ["weight"])
    c = nn.Linear(2, 3, bias=False)
    c.weight = nn.Parameter(a.weight.detach().reshape(3, 2))
    assert weight_hashes(a, ["weight"]) != weight_hashes(c, ["weight"])
    assert weight_hashes(a, ["weight"]) != weight_hashes(a.double(), ["weight"])
    with pytest.raises(MaskError, match="no parameter 'bias'"):
        weight_hashes(a, ["bias"])
    with pytest.raises(MaskError, match="meta device"):
        weight_hashes(nn.Linear(2, 3, device="meta"), ["weight"])


# ---- damage


def test_every_truncation_is_refused(tmp_path):
    model, path = net(), tmp_path / "m.safetensors"
    half(model).save(path, model)
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(MaskFileError, match=r"m\.safetensors"):
            MaskSet.load(path)


def test_every_flipped_bit_of_the_data_is_noticed(tmp_path):
    path = tmp_path / "m.safetensors"
    model = net()
    half(model).save(path, values={"0.weight": model[0].weight})
    whole = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(whole[:8], "little")
    for position in range(start, len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        with pytest.raises(MaskFileError, match="damaged"):
            MaskSet.load(path)


def test_every_damaged_byte_of_the_header_is_noticed(tmp_path):
    path = tmp_path / "m.safetensors"
    masks = half(net())
    masks.save(path, config={"sparsity": 0.5})
    whole = path.read_bytes()
    for position in range(8 + int.from_bytes(whole[:8], "little")):
        damaged = bytearray(whole)
        damaged[position] ^= 0x15
        path.write_bytes(damaged)
        try:
            loaded = MaskSet.load(path)
        except MaskFileError:
            continue
        # what is left: the padding of safetensors' own header
        assert whole[position] == ord(" ")
        assert loaded == masks


def edit_record(**changes):
    return lambda text, tensors, records: records[0].update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit_record(shape=[3, 1, 3, 4]), "must be 5 bytes"),
        (edit_record(shape=[3, 1, -3, -3]), "entry 0 .* malformed"),
        (edit_record(shape=[2**60, 2**60]), "must be .* bytes"),
        (edit_record(shape=[3, 1, True, 9]), "entry 0 .* malformed"),
        (edit_record(kept=27), "keeps .* weights, the file says 27"),
        (edit_record(name="2.weight"), "'2.weight' is listed twice"),
        (edit_record(name="9.weight"), "'9.weight' but holds no mask"),
        (edit_record(hash=5), "entry 0 .* malformed"),
        (edit_record(values_sha256="00"), "lists values for '0.weight' but holds none"),
        (lambda t, x, r: r.pop(), "tensors that it does not list: mask:2.weight"),
        (lambda t, x, r: r.clear(), "list of parameters is empty"),
        (lambda t, x, r: t.update(format_version="2"), "mask format '2'"),
        (lambda t, x, r: t.update(format="other"), "not a mask file"),
        (lambda t, x, r: t.update(config="[1]"), "'config' is not a JSON object"),
        (lambda t, x, r: t.update(config="{"), "'config' is not JSON"),
        (lambda t, x, r: t.update(metadata="[" * 100_000), "'metadata' is not JSON"),
        (lambda t, x, r: t.pop("config"), "lacks the entry 'config'"),
        (lambda t, x, r: x.update({"mask:0.weight": torch.ones(4)}), "must be 4 bytes"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path, change, message):
    path = tmp_path / "m.safetensors"
    half(net()).save(path)
    rewrite(path, change)
    with pytest.raises(MaskFileError, match=message):
        MaskSet.load(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(FileNotFoundError, match="no mask file"):
        MaskSet.load(path)
    with pytest.raises(MaskFileError, match="not a file"):
        MaskSet.load(tmp_path)
    path.write_text("hello")
    with pytest.raises(MaskFileError, match="not a safetensors file"):
        MaskSet.load(path)
    save_file({"w": torch.ones(2)}, path)
    with pytest.raises(MaskFileError, match="not a mask file of optiprune"):
        MaskSet.load(path)


# ---- writing


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "m.safetensors"
    masks = half(net())
    masks.save(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space left"):
        masks.invert().save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"config": {"x": float("nan")}}, "config cannot be written as JSON"),
        ({"config": "text"}, "config must be a mapping or a Config, got str"),
        ({"metadata": {"x": object()}}, "metadata cannot be written as JSON"),
        ({"values": {"0.bias": torch.ones(3)}}, "for '0.bias', but no mask"),
        ({"model": nn.Linear(2, 2)}, "no parameter '0.weight'"),
    ],
)
def test_refused_before_anything_is_written(tmp_path, arguments, message):
    with pytest.raises(MaskError, match=message):
        half(net()).save(tmp_path / "m", **arguments)
    assert os.listdir(tmp_path) == []


def test_a_config_model_is_stored_as_json(tmp_path):
    config = pytest.importorskip("optiprune.config")
    path = tmp_path / "m"
    half(net()).save(path, config=config.Config())
    assert read_mask_file(path).config["prune"]["sparsity"] == 0.5
