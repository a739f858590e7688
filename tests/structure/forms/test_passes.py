"""Models with other forms in them: where, measured how, and compared with the model itself."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optiprune.structure import (
    FormRecord,
    GateError,
    dense_kernel,
    densified,
    transposed_upsample,
    without_resize,
)
from optiprune.structure.forms import passes
from optiprune.structure.forms.upsampling import ByChannels


def faster(before, after) -> tuple[float, float]:
    """A measurement by which the new form wins; both must run."""
    before()
    after()
    return 2.0, 1.0


def slower(before, after) -> tuple[float, float]:
    before()
    after()
    return 1.0, 2.0


class Net(nn.Module):
    """Grouped convolutions and resizes, one of each shared; a part that does not run."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.again = self.grouped
        self.deep = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8), nn.ReLU())
        self.up = nn.Upsample(scale_factor=2, mode="bilinear")
        self.blocks = nn.ModuleList([self.up, nn.Conv2d(8, 3, 1)])
        self.near = nn.Upsample(scale_factor=(3, 2))
        self.idle = nn.Conv2d(4, 4, 1, groups=2)
        self.idle_up = nn.Upsample(scale_factor=2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = self.deep(self.again(F.relu(self.grouped(x))))
        for block in self.blocks:
            x = block(x)
        return self.near(self.up(x))  # of three channels here, of eight above


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    model = Net()
    model.norm.running_mean.normal_()
    model.deep.eval()
    return model


@pytest.fixture
def inputs() -> tuple[Tensor]:
    return (torch.randn(2, 3, 8, 6, generator=torch.Generator().manual_seed(0)),)


def same_as_before(model: nn.Module, before: nn.Module) -> bool:
    names = [(n, type(m), m.training) for n, m in model.named_modules(remove_duplicate=False)]
    want = [(n, type(m), m.training) for n, m in before.named_modules(remove_duplicate=False)]
    state, old = model.state_dict(), before.state_dict()
    hooks = any(m._forward_pre_hooks for m in model.modules())
    tensors = list(state) == list(old) and all(torch.equal(state[k], old[k]) for k in old)
    return names == want and tensors and not hooks


def of(records: tuple[FormRecord, ...]) -> dict[str, tuple[bool, str]]:
    return {r.module: (r.replaced, r.reason) for r in records}


def check_equal(model: nn.Module, other: nn.Module, inputs: tuple[Tensor]) -> None:
    with torch.no_grad():
        a, b = copy.deepcopy(model).eval()(*inputs), copy.deepcopy(other).eval()(*inputs)
    assert float((a - b).abs().max() / b.abs().max()) < 1e-5


def test_grouped_convolutions_become_dense_everywhere_and_once(net: Net, inputs) -> None:
    before = copy.deepcopy(net)
    done = densified(net, inputs, measure=faster)
    assert same_as_before(net, before)
    new = done.model
    assert new.grouped is new.again
    assert (new.grouped.groups, new.deep[0].groups, new.idle.groups) == (1, 1, 2)
    assert all(m.training == n.training for m, n in zip(net.modules(), new.modules(), strict=True))
    assert (new.training, new.deep.training, new.deep[0].training) == (True, False, False)
    assert of(done.records) == {
        "grouped": (True, "takes 1 s instead of 2 s"),
        "deep.0": (True, "takes 1 s instead of 2 s"),
        "idle": (False, "it does not run on these inputs"),
    }
    assert len(done.compared) == 3
    check_equal(new, net, inputs)


def test_resizes_become_convolutions_everywhere_and_once(net: Net, inputs) -> None:
    before = copy.deepcopy(net)
    done = without_resize(net, inputs, measure=slower)  # replaced though it is slower
    assert same_as_before(net, before)
    new = done.model
    assert isinstance(new.up, ByChannels)
    assert list(new.up.forms) == ["3", "8"]
    assert new.blocks[0] is new.up
    assert isinstance(new.near, nn.Sequential)
    assert new.up.training
    assert of(done.records) == {
        "up": (True, "takes 2 s instead of 1 s"),
        "near": (True, "takes 2 s instead of 1 s"),
        "idle_up": (False, "it does not run on these inputs"),
    }
    assert done.records[0].before_s == 1.0
    assert done.records[0].after_s == 2.0
    check_equal(new, net, inputs)
    program = torch.export.export(new.eval(), inputs).run_decompositions({})
    assert not any("upsample" in str(n.target) for n in program.graph.nodes)


def test_nothing_is_replaced_that_is_not_faster(net: Net, inputs) -> None:
    done = densified(net, inputs, measure=slower)
    assert not any(r.replaced for r in done.records)
    assert (done.model.grouped.groups, done.model is net) == (4, False)
    assert done.records[0].after_s == 2.0
    done = without_resize(net, inputs, only_if_faster=True, measure=slower)
    assert not any(r.replaced for r in done.records)
    done = without_resize(net, inputs, only_if_faster=True, measure=faster)
    assert [r.replaced for r in done.records] == [True, True, False]


@pytest.mark.parametrize(("threshold", "replaced"), [(0.95, False), (1.0, True), (0.96, True)])
def test_the_threshold_is_a_share_of_the_time(threshold: float, replaced: bool) -> None:
    conv = nn.Conv1d(4, 4, 1, groups=2)
    done = densified(
        conv, (torch.randn(1, 4, 5),), threshold=threshold, measure=lambda a, b: (1.0, 0.96)
    )
    assert done.records[0].replaced is replaced


def test_a_threshold_that_nothing_meets_is_refused(net: Net, inputs) -> None:
    with pytest.raises(ValueError, match="threshold=0"):
        densified(net, inputs, threshold=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_that_is_the_module_itself(dtype: torch.dtype) -> None:
    x = (torch.randn(2, 4, 5, 7, dtype=dtype),)
    conv = nn.Conv2d(4, 6, 3, groups=2, dtype=dtype)
    done = densified(conv, x, measure=faster)
    assert (done.records[0].module, done.model.groups, conv.groups) == ("", 1, 2)
    up = nn.Upsample(scale_factor=3, mode="bilinear").eval()
    done = without_resize(up, x, measure=faster)
    assert isinstance(done.model, nn.Sequential)
    assert not done.model.training
    assert next(done.model.parameters()).dtype is dtype
    check_equal(done.model, up, x)


def test_candidates_are_measured_on_what_they_read(net: Net, inputs) -> None:
    seen: list[list[tuple[tuple[int, ...], tuple[int, ...]]]] = []

    def watching(before, after) -> tuple[float, float]:
        calls: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        note = lambda module, args: calls.append((tuple(args[0].shape), args[0].stride()))
        handle = before.args[0].register_forward_pre_hook(note)
        before()
        handle.remove()
        seen.append(calls)
        return 1.0, 1.0

    densified(net.to(memory_format=torch.channels_last), inputs, measure=watching)
    # twice in one run, in the layout that the convolution before it gives
    assert [shape for shape, _ in seen[0]] == [(2, 8, 8, 6)] * 2
    assert seen[0][0][1] == (8 * 48, 1, 6 * 8, 8)
    without_resize(net, inputs, measure=watching)
    assert [shape for shape, _ in seen[2]] == [(2, 8, 4, 3), (2, 3, 8, 6)]


def test_the_measurement_that_is_the_default(net: Net, inputs) -> None:
    done = densified(net, inputs, repeats=2)
    for r in done.records[:2]:
        assert r.before_s > 0
        assert r.after_s > 0
        assert r.replaced == (r.after_s <= 0.95 * r.before_s)


@pytest.mark.parametrize("which", ["dense", "resize"])
def test_a_wrong_form_does_not_pass(which: str, net: Net, inputs, monkeypatch) -> None:
    before = copy.deepcopy(net)

    def wrong(make):
        def made(*args, **kwargs):
            out = make(*args, **kwargs)
            with torch.no_grad():
                next(out.parameters()).add_(0.01)
            return out

        return made

    monkeypatch.setattr(passes, "dense_kernel", wrong(dense_kernel))
    monkeypatch.setattr(passes, "transposed_upsample", wrong(transposed_upsample))
    run = densified if which == "dense" else without_resize
    with pytest.raises(GateError, match="the new model differs from the given one by"):
        run(net, inputs, measure=faster)
    assert same_as_before(net, before)
    run(net, inputs, measure=faster, tolerance=10.0)


class Calls(nn.Module):
    """Resizes that are no registered modules."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Upsample(scale_factor=2)
        self.hidden = [self.up, nn.Upsample(scale_factor=2)]
        self.cubic = nn.Upsample(scale_factor=2, mode="bicubic")
        self.twice = Twice()

    def forward(self, x: Tensor) -> Tensor:
        return self.cubic(self.up(self.hidden[0](self.hidden[1](self.twice(x)))))


class Twice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = F.interpolate(x, scale_factor=2, mode="bilinear")
        return x


def test_calls_in_the_code_are_left_and_told_with_their_lines() -> None:
    done = without_resize(Calls(), (torch.randn(1, 2, 2, 3),), measure=faster)
    up, cubic, *calls = done.records
    assert (up.module, up.replaced) == ("up", True)
    assert (cubic.module, cubic.replaced) == ("cubic", False)
    assert "mode 'bicubic'" in cubic.reason
    assert {r.module for r in calls} == {"twice", ""}
    assert not any(r.replaced for r in calls)
    (inner,) = [r for r in calls if r.module == "twice"]
    line = Twice.forward.__code__.co_firstlineno + 2
    assert f"upsample_bilinear2d.vec at {__file__.rsplit('/', 1)[-1]}:{line} is a call" in (
        inner.reason
    )
    assert all("upsample_nearest2d" in r.reason for r in calls if r.module == "")


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Upsample(scale_factor=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x) * float(x.sum().item() > 1e9) if x.sum() > -1e9 else x


def test_a_model_that_cannot_be_traced_says_that_its_code_was_not_read() -> None:
    done = without_resize(Untraceable(), (torch.randn(1, 2, 2, 3),), measure=faster)
    assert [(r.module, r.replaced) for r in done.records] == [("up", True), ("", False)]
    assert "whether its code resizes is not known: torch.export could not" in done.records[1].reason


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv1d(4, 4, 1, groups=2)
        self.b = nn.Conv1d(4, 4, 1, groups=2)
        self.b.weight = self.a.weight
        self.c = nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 4, 1, groups=2))

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(input=self.a(x)))


def test_tied_weights_stay_tied_and_parametrized_ones_as_they_are() -> None:
    done = densified(Tied(), (torch.randn(1, 4, 3),), measure=faster)
    assert {k: v for k, (_, v) in of(done.records).items()} == {
        "a": "it shares a parameter with another module",
        "b": "it shares a parameter with another module",
        "c": "ParametrizedConv1d is not one of Conv1d, Conv2d, Conv3d, ConvTranspose1d, "
        "ConvTranspose2d, ConvTranspose3d",
    }
    assert done.model.a.weight is done.model.b.weight


def test_an_upsampling_of_several_kinds_of_tensors_stays() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Upsample(scale_factor=2)

        def forward(self, x: Tensor) -> Tensor:
            return self.up(x).sum() + self.up(x[:, :, 0]).sum()

    (record,) = without_resize(Mixed(), (torch.randn(1, 2, 3, 3),), measure=faster).records
    assert record.reason == "it reads tensors of several ranks, dtypes or devices"


def test_a_form_that_does_not_run_leaves_the_module() -> None:
    def fails(before, after) -> tuple[float, float]:
        raise RuntimeError("no kernel")

    (record,) = densified(
        nn.Conv1d(4, 4, 1, groups=2), (torch.randn(1, 4, 3),), measure=fails
    ).records
    assert (record.replaced, record.reason) == (False, "the form does not run: no kernel")


def test_keyword_inputs_and_a_model_without_candidates() -> None:
    conv = nn.Conv1d(4, 4, 1, groups=2)
    x = torch.randn(2, 4, 3)
    assert densified(conv, (), {"input": x}, measure=faster).model.groups == 1
    done = densified(nn.Linear(3, 2), (x,), measure=faster)
    assert done.records == ()
    assert isinstance(done.model, nn.Linear)


def test_the_new_model_is_saved_and_trained_as_any_other(net: Net, inputs) -> None:
    done = without_resize(densified(net, inputs, measure=faster).model, inputs, measure=faster)
    again = copy.deepcopy(done.model)
    with torch.no_grad():
        for p in again.parameters():
            p.zero_()
    again.load_state_dict(done.model.state_dict())
    check_equal(again, net, inputs)
    kernels = [p for n, p in again.named_parameters() if not p.requires_grad]
    assert len(kernels) == 3
    again(*inputs).square().mean().backward()
    assert all(p.grad is None for p in kernels)
    assert again.stem.weight.grad is not None
