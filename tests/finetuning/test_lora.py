"""Low-rank adapters on a sparse model: they learn, and merging changes neither output nor zero."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from optiprune.finetuning import FineTuningError, SparseLoRA, add_lora
from optiprune.masks import MaskError, MaskSet


class Net(nn.Module):
    """A convolution, a grouped one, and a linear layer."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 8, 3, padding=1)
            self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
            self.norm = nn.BatchNorm2d(8)
            self.fc = nn.Linear(8, 4)

    def forward(self, x):
        x = self.norm(self.grouped(self.conv(x).relu())).relu()
        return self.fc(x.mean((2, 3)))


def masked(dtype=torch.float32) -> tuple[Net, MaskSet]:
    model = Net().to(dtype)
    g = torch.Generator().manual_seed(1)
    masks = MaskSet(
        {
            f"{n}.weight": torch.rand(getattr(model, n).weight.shape, generator=g) < 0.4
            for n in ("conv", "grouped", "fc")
        }
    )
    masks.apply(model).make_permanent()
    return model, masks


def data(dtype=torch.float32):
    g = torch.Generator().manual_seed(2)
    x = torch.randn(32, 3, 6, 6, generator=g)
    return x.to(dtype), torch.randint(0, 4, (32,), generator=g)


def train(model, adapters: SparseLoRA, steps=30, dtype=torch.float32) -> list[float]:
    x, y = data(dtype)
    optimizer = torch.optim.AdamW(adapters.parameters(), lr=1e-2, weight_decay=0.1)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x).float(), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_merging_changes_no_output_and_no_zero(dtype):
    model, masks = masked(dtype)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    x, _ = data(dtype)
    model.eval()
    start = model(x)
    adapters = add_lora(model, masks, rank=4)
    assert torch.equal(model(x), start)  # b is zero
    model.train()
    losses = train(model, adapters, dtype=dtype)
    assert losses[-1] < 0.9 * losses[0]
    model.eval()
    want = model(x)
    adapters.merge()
    assert torch.equal(model(x), want)
    assert not torch.equal(want, start)
    assert [n for n, _ in model.named_parameters()] == list(before)
    for name, p in model.named_parameters():
        assert p.dtype == dtype
        assert p.requires_grad
        if name in masks:
            assert not p[~masks[name]].any()
            assert (p[masks[name]] != before[name][masks[name]]).float().mean() > 0.5
        else:
            assert torch.equal(p, before[name])  # frozen
    assert type(model.fc) is nn.Linear


def test_the_update_is_that_of_lora_with_the_mask_on_it():
    model, masks = masked()
    base = model.fc.weight.detach().clone()
    adapters = add_lora(model, masks, rank=2, alpha=6.0, names=["fc.weight"])
    a, b = adapters.parameters()
    with torch.no_grad():
        a.copy_(torch.arange(16.0).reshape(2, 8))
        b.copy_(torch.arange(8.0).reshape(4, 2) - 3)
    by_hand = torch.zeros(4, 8)
    for i in range(4):
        for j in range(8):
            if masks["fc.weight"][i, j]:
                by_hand[i, j] = base[i, j] + 3.0 * sum(b[i, r] * a[r, j] for r in range(2))
    adapters.merge()
    torch.testing.assert_close(model.fc.weight.detach(), by_hand)
    assert adapters.count() == 2 * 8 + 4 * 2


def test_merged_under_autocast_too():
    model, masks = masked()
    adapters = add_lora(model, masks, rank=4)
    train(model, adapters, steps=5)
    x, _ = data()
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        want = model(x)
    adapters.merge()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(x), want)


def test_removing_gives_the_sparse_model_back_bit_for_bit():
    model, masks = masked()
    model.fc.bias.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    adapters = add_lora(model, masks, rank=4, also_train=["norm.weight"])
    trained = {n.rpartition(".")[2] for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {"a", "b", "weight"}
    train(model, adapters, steps=3)
    assert not torch.equal(model.norm.weight, before["norm.weight"])
    adapters.remove()
    assert not adapters.active
    for name in masks:
        assert torch.equal(model.get_parameter(name), before[name])
    assert not model.fc.bias.requires_grad
    assert model.fc.weight.requires_grad
    with pytest.raises(FineTuningError, match=r"merged or removed before"):
        adapters.merge()


def test_the_seed_alone_draws_and_the_global_state_is_left_alone():
    values = []
    for seed in (0, 0, 1):
        model, masks = masked()
        state = torch.get_rng_state()
        adapters = add_lora(model, masks, seed=seed, rank=2)
        assert torch.equal(torch.get_rng_state(), state)
        values.append(torch.cat([p.detach().flatten() for p in adapters.parameters()]))
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


def test_adapters_are_stored_and_read(tmp_path):
    model, masks = masked()
    adapters = add_lora(model, masks, rank=3)
    train(model, adapters, steps=5)
    adapters.save(tmp_path / "a.safetensors")
    model.eval()
    x, _ = data()
    want = model(x)
    other, _ = masked()
    other.norm.load_state_dict(model.norm.state_dict())
    again = add_lora(other, masks, rank=3, seed=7)
    again.load(tmp_path / "a.safetensors")
    assert torch.equal(other.eval()(x), want)

    def refused(text, *, use=masks, **options):
        fresh, _ = masked()
        use.apply(fresh)
        made = add_lora(fresh, use, **{"rank": 3, **options})
        before = [p.detach().clone() for p in made.parameters()]
        with pytest.raises(FineTuningError, match=text):
            made.load(tmp_path / "a.safetensors")
        assert all(torch.equal(a, b) for a, b in zip(before, made.parameters(), strict=True))

    refused("of rank 3 and alpha 16.0, these are of rank 4", rank=4)
    refused("only the file adapts 'conv.weight'", names=["fc.weight", "grouped.weight"])
    fewer = MaskSet({**masks, "fc.weight": masks["fc.weight"] & (torch.arange(8) > 1)})
    refused("another mask of 'fc.weight'", use=fewer)
    tensors = load_file(tmp_path / "a.safetensors")
    save_file(tensors, tmp_path / "a.safetensors")
    refused("is no file of adapters")
    (tmp_path / "a.safetensors").write_bytes(b"\x80\x04.")
    refused("is damaged or is not a safetensors file")


def test_refusals_change_nothing():
    model, masks = masked()
    names = [n for n, _ in model.named_parameters()]

    def refused(text, error=FineTuningError, **options):
        with pytest.raises(error, match=text):
            add_lora(model, options.pop("masks", masks), **options)
        assert [n for n, _ in model.named_parameters()] == names
        assert all(p.requires_grad for p in model.parameters())

    refused("rank must be an integer", rank=0)
    refused("rank must be an integer", rank=2.0)
    refused("alpha must be a positive number", alpha=float("nan"))
    refused(r"rank 5 is more than 'fc.weight' has \(4 x 8: 4\)", rank=5)
    refused("'norm.weight' has no mask", names=["norm.weight"])
    refused("names is empty", names=[])
    refused("no parameter 'fc.wait'", also_train=["fc.wait"])
    refused("also_train: 'fc.weight' is masked", also_train=["fc.weight"])
    flat = MaskSet({"norm.weight": torch.ones(8, dtype=torch.bool)})
    refused("an adapter needs a matrix", masks=flat)
    with torch.no_grad():
        model.fc.weight.add_(1.0)
    refused(r"'fc.weight' is non-zero at \d+ pruned weights", MaskError, rank=2)


def test_tied_weights_are_refused():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Embedding(6, 4)
            self.b = nn.Linear(4, 6, bias=False)
            self.b.weight = self.a.weight

    masks = MaskSet({"a.weight": torch.ones(6, 4, dtype=torch.bool)})
    with pytest.raises(FineTuningError, match=r"'a.weight' and 'b.weight' are one tied tensor"):
        add_lora(Tied(), masks, rank=2)


def test_a_training_that_diverged_is_not_merged():
    model, masks = masked()
    adapters = add_lora(model, masks, rank=2)
    with torch.no_grad():
        adapters.parameters()[1].fill_(float("nan"))
    with pytest.raises(FineTuningError, match=r"training diverged"):
        adapters.merge()
    adapters.remove()
    assert not model.conv.weight[~masks["conv.weight"]].any()
    assert torch.isfinite(model.conv.weight).all()


def test_the_conv1d_of_transformers():
    utils = pytest.importorskip("transformers.pytorch_utils")
    model = nn.Sequential(utils.Conv1D(6, 4), nn.Tanh(), utils.Conv1D(4, 6))
    g = torch.Generator().manual_seed(0)
    masks = MaskSet(
        {
            n: torch.rand(p.shape, generator=g) < 0.5
            for n, p in model.named_parameters()
            if p.ndim > 1
        }
    )
    masks.apply(model).make_permanent()
    adapters = add_lora(model, masks, rank=2)
    with torch.no_grad():
        for p in adapters.parameters():
            p.copy_(torch.randn(p.shape, generator=g))
    x = torch.randn(5, 4, generator=g)
    want = model(x)
    adapters.merge()
    assert torch.equal(model(x), want)
    assert all(not model.get_parameter(n)[~m].any() for n, m in masks.items())
