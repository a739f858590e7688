"""The packed file: bit for bit what was saved, small, and refused when anything is wrong."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from optiprune.export import (
    ExportError,
    PackedFileError,
    load_packed,
    read_packed,
    save_packed,
    save_state_dict,
)
from optiprune.export.checks import distinct_bytes
from optiprune.export.packed import parts_digest
from optiprune.masks import MaskError, MaskSet
from optiprune.masks.file import header_digest


class Net(nn.Module):
    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.conv = nn.Conv1d(8, 6, 3)
        self.norm = nn.BatchNorm1d(6)
        self.fc = nn.Linear(6, 8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight
        self.to(dtype)
        g = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=g))


def masked(dtype=torch.float32, density=0.3, tied=True) -> tuple[Net, MaskSet]:
    model = Net(dtype)
    g = torch.Generator().manual_seed(1)
    names = ["conv.weight", "fc.weight", *(["head.weight"] if tied else [])]
    masks = MaskSet(
        {n: torch.rand(model.get_parameter(n).shape, generator=g) < density for n in names}
    )
    masks.apply(model).make_permanent()
    return model, masks


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    a, b = (t.detach().contiguous().reshape(-1) for t in (a, b))
    return a.dtype == b.dtype and a.view(torch.uint8).equal(b.view(torch.uint8))


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str
)
@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_everything_comes_back_bit_for_bit(tmp_path, dtype, density):
    model, masks = masked(dtype, density)
    with torch.no_grad():
        model.norm.running_var.fill_(0.1)
        model.norm.num_batches_tracked.fill_(7)
    save_packed(model, masks, tmp_path / "m.safetensors", metadata={"epoch": 3})
    other = Net(dtype)
    assert load_packed(tmp_path / "m.safetensors", other) == masks
    for (name, a), b in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert same_bits(a, b), name
    packed = read_packed(tmp_path / "m.safetensors")
    assert packed.metadata == {"epoch": 3}
    assert packed.state["head.weight"] is packed.state["embed.weight"]
    assert packed.masks == masks


def test_the_layout_by_hand(tmp_path):
    model = nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.arange(1.0, 10.0).reshape(3, 3))
    mask = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.bool)
    masks = MaskSet({"weight": mask})
    masks.apply(model)
    save_packed(model, masks, tmp_path / "m.safetensors")
    stored = load_file(tmp_path / "m.safetensors")
    assert stored["mask:weight"].tolist() == [0b10010000, 0b10000000]
    assert stored["values:weight"].tolist() == [1.0, 4.0, 9.0]
    assert set(stored) == {"mask:weight", "values:weight"}


def test_a_bit_a_weight_and_the_kept_values(tmp_path):
    model = nn.Linear(512, 512, bias=False).half()
    keep = torch.rand(512, 512, generator=torch.Generator().manual_seed(0)) < 0.1
    masks = MaskSet({"weight": keep})
    masks.apply(model)
    save_packed(model, masks, tmp_path / "p.safetensors")
    save_state_dict(model, masks, tmp_path / "d.safetensors")
    size = (tmp_path / "p.safetensors").stat().st_size
    n, kept = 512 * 512, int(keep.sum())
    assert n // 8 + 2 * kept < size < n // 8 + 2 * kept + 1000
    assert distinct_bytes(model) == 2 * n
    assert 2 * n < (tmp_path / "d.safetensors").stat().st_size < 2 * n + 2000
    assert torch.equal(load_file(tmp_path / "d.safetensors")["weight"], model.weight)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    shapes=st.lists(st.lists(st.integers(0, 5), min_size=0, max_size=4), min_size=1, max_size=4),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    density=st.sampled_from([0.0, 0.2, 0.5, 1.0]),
    some_masked=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_any_shapes_come_back(tmp_path, shapes, dtype, density, some_masked, seed):
    g = torch.Generator().manual_seed(seed)
    model = nn.ParameterDict(
        {
            f"p{i}": nn.Parameter((torch.randn(s, generator=g) * 10).to(dtype))
            for i, s in enumerate(shapes)
        }
    )
    model.register_buffer("flags", torch.rand(3, generator=g) < 0.5)
    masks = MaskSet(
        {
            n: torch.rand(p.shape, generator=g) < density
            for i, (n, p) in enumerate(model.named_parameters())
            if not (some_masked and i)
        }
    )
    masks.apply(model)
    save_packed(model, masks, tmp_path / "m.safetensors")
    packed = read_packed(tmp_path / "m.safetensors")
    assert packed.masks == masks
    assert packed.state.keys() == model.state_dict().keys()
    for name, t in model.state_dict().items():
        assert packed.state[name].shape == t.shape
        assert same_bits(packed.state[name], t), name


def refused_to_save(model, masks, path, error, text, **options):
    path.write_bytes(b"an earlier file")
    with pytest.raises(error, match=text):
        save_packed(model, masks, path, **options)
    assert path.read_bytes() == b"an earlier file"
    assert len(list(path.parent.iterdir())) == 1


def test_what_cannot_be_saved_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "m.safetensors"
    model, masks = masked()
    dense = Net()
    refused_to_save(dense, masks, path, ExportError, r"not zero at \d+ of \d+ pruned weights")
    other = MaskSet({"fc.weight": torch.ones(3, 3, dtype=torch.bool)})
    refused_to_save(model, other, path, MaskError, r"has shape \(8, 6\)")
    other = MaskSet({"gc.weight": torch.ones(3, 3, dtype=torch.bool)})
    refused_to_save(model, other, path, MaskError, r"did you mean 'fc.weight'")
    refused_to_save(model, masks, path, ExportError, r"metadata", metadata={"x": object()})
    with torch.no_grad():
        model.fc.bias[2] = float("nan")
    refused_to_save(model, masks, path, ExportError, r"'fc.bias' holds 1 NaN .* index \(2,\)")
    model, masks = masked()
    with torch.no_grad():
        model.fc.weight[masks["fc.weight"]] = float("inf")
    refused_to_save(model, masks, path, MaskError, r"infinite .* repair the checkpoint")
    model, masks = masked()
    model.register_buffer("odd", torch.eye(3).to_sparse())
    refused_to_save(model, masks, path, ExportError, r"'odd' .* is a torch.sparse_coo tensor")


def test_a_full_disk_says_so(tmp_path, monkeypatch):
    import optiprune.export.packed as module

    def full(tensors, path, metadata):
        raise module.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(module, "save_file", full)
    model, masks = masked()
    with pytest.raises(OSError, match="No space left on device"):
        save_packed(model, masks, tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def stored(tmp_path):
    model, masks = masked()
    path = tmp_path / "m.safetensors"
    save_packed(model, masks, path)
    return path


def refused(path, text, model=None):
    model = model or Net()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with pytest.raises(PackedFileError, match=text):
        load_packed(path, model)
    assert all(same_bits(t, before[n]) for n, t in model.state_dict().items())


def test_another_model_is_refused_and_left_as_it_is(stored):
    refused(stored, "only the file has|only the model has", nn.Linear(2, 2))
    refused(stored, r"torch.float32 in .* and .*torch.float16", Net(torch.float16))
    wide = Net()
    wide.fc = nn.Linear(6, 9)
    refused(stored, r"'fc.weight' is \(8, 6\) torch.float32 in", wide)


def test_a_model_that_ties_what_the_file_does_not(tmp_path):
    model = Net()
    model.head = nn.Linear(8, 20, bias=False)
    masks = MaskSet({"fc.weight": torch.ones(8, 6, dtype=torch.bool)})
    save_packed(model, masks, tmp_path / "m.safetensors")
    refused(tmp_path / "m.safetensors", "'embed.weight' and 'head.weight' are one tied tensor")


def test_no_file_and_other_files(tmp_path, stored):
    with pytest.raises(FileNotFoundError, match="no packed file"):
        read_packed(tmp_path / "none.safetensors")
    with pytest.raises(PackedFileError, match="is not a file"):
        read_packed(tmp_path)
    torch.save({"a": torch.ones(2)}, tmp_path / "p.pt")  # a pickle is not read
    refused(tmp_path / "p.pt", "is damaged or is not a safetensors file")
    save_file({"a": torch.ones(2)}, tmp_path / "s.safetensors")
    refused(tmp_path / "s.safetensors", "not a packed file of optiprune")
    masks = MaskSet({"weight": torch.ones(2, 2, dtype=torch.bool)})
    masks.save(tmp_path / "masks.safetensors")
    refused(tmp_path / "masks.safetensors", "its format is 'optiprune-masks'")


def test_every_truncation_and_every_changed_byte_is_seen(stored):
    whole = stored.read_bytes()
    for cut in [0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1]:
        stored.write_bytes(whole[:cut])
        with pytest.raises(PackedFileError):
            read_packed(stored)
    g = torch.Generator().manual_seed(0)
    for at in torch.randint(0, len(whole), (200,), generator=g).tolist():
        changed = bytearray(whole)
        changed[at] ^= 1 << (at % 8)
        stored.write_bytes(changed)
        try:
            packed = read_packed(stored)
        except PackedFileError:
            continue
        # a byte that means nothing: padding or a space between entries of the header
        stored.write_bytes(whole)
        want = read_packed(stored)
        assert packed.masks == want.masks
        assert all(same_bits(t, want.state[n]) for n, t in packed.state.items())


def rewritten(path, change, *, sign=True):
    """The file with its header changed, the checksum made anew."""
    tensors = load_file(path)
    with safe_open(path, framework="pt") as f:
        text = f.metadata()
    records = json.loads(text["tensors"])
    change(text, records, tensors)
    text["tensors"] = json.dumps(records)
    if sign:
        text["sha256"] = header_digest(text)
    save_file(tensors, path, metadata=text)


MASKED = 1  # "conv.weight" of the records
EMPTY = torch.zeros(0, dtype=torch.uint8)
ONES = torch.tensor([255], dtype=torch.uint8)


def _set(place, value):
    return lambda text, records, tensors: records[MASKED].__setitem__(place, value)


def _stored_as(shape, mask, values):
    """Other parts under a digest that is right."""

    def change(text, records, tensors):
        tensors.update({"mask:conv.weight": mask, "values:conv.weight": values})
        records[MASKED][1:3] = [parts_digest([mask, values]), shape]

    return change


CHANGES = {
    "newer": (lambda t, r, x: t.update(format_version="2"), "has packed format '2', written by"),
    "no list": (lambda t, r, x: r.clear(), "holds tensors that it does not list"),
    "twice": (lambda t, r, x: r.append(r[0]), "is listed twice"),
    "huge shape": (_set(2, [2**40, 2**20]), r"must be \d+ bytes, is"),
    "no shape of torch": (_stored_as([0, 2**80], EMPTY, torch.zeros(0)), "cannot have shape"),
    "negative shape": (_set(2, [-1]), "entry 1 of the list of tensors is malformed"),
    "true as a number": (_set(2, [True]), "is malformed"),
    "fewer values": (_stored_as([8], ONES, torch.ones(7)), r"keeps 8 weights, .* are \(7,\)"),
    "whole numbers": (_stored_as([8], ONES, torch.ones(8).int()), "keeps 8 .* torch.int32"),
    "not finite": (_stored_as([8], ONES, torch.ones(8) / 0), "values of .* are not all finite"),
    "a name outside": (_set(3, ["fc.bias"]), "is malformed"),
    "an entry too long": (lambda t, r, x: r[MASKED].append(1), "is malformed"),
    "no list of an entry": (lambda t, r, x: r.append({}), "is malformed"),
    "a digest that is none": (_set(1, 3), "is malformed"),
    "no names": (_set(0, []), "is malformed"),
    "missing tensor": (lambda t, r, x: x.pop("values:conv.weight"), "does not hold it"),
    "changed values": (lambda t, r, x: x["values:conv.weight"].add_(1), "its checksum differs"),
    "metadata": (lambda t, r, x: t.update(metadata="[1]"), "is not a JSON object"),
    "no metadata": (lambda t, r, x: t.pop("metadata"), "lacks the entry 'metadata'"),
}


@pytest.mark.parametrize(("change", "text"), CHANGES.values(), ids=CHANGES.keys())
def test_headers_that_lie(stored, change, text):
    rewritten(stored, change)
    refused(stored, text)


def test_a_header_that_was_changed_without_its_checksum(stored):
    rewritten(stored, _set(2, [1]), sign=False)
    refused(stored, "the checksum of its header differs")


def test_a_header_that_says_it_is_longer_than_the_file(stored):
    whole = stored.read_bytes()
    stored.write_bytes(struct.pack("<Q", 2**40) + whole[8:])
    refused(stored, "is damaged or is not a safetensors file")
