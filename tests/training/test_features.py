"""Features of two models: what is captured, compared, and made a regression of."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from optiprune.curvature import CalibrationSet
from optiprune.training import FeaturePairs, TrainingError
from optiprune.training.terms.features import captured, channels_last

from .conftest import make_net, make_stripes

X, Y = make_stripes(60, 4)
EXAMPLE = ((X[:2],), {})


def test_captured_outputs_and_no_hook_left() -> None:
    net = make_net().eval()
    with captured(net, ["stem", "hidden"]) as found:
        net(X[:5])
    torch.testing.assert_close(found["stem"], net.stem(X[:5]))
    assert found["hidden"].shape == (5, 24)
    assert not any(m._forward_hooks for m in net.modules())
    with pytest.raises(TrainingError, match="no module 'nothing'"), captured(net, ["nothing"]):
        pass


def test_positions_and_channels() -> None:
    g = torch.Generator().manual_seed(0)
    picture = torch.randn(3, 5, 8, 6, generator=g)
    out = channels_last(picture, 4)
    assert out.shape == (3, 16, 5)
    torch.testing.assert_close(out[:, 0], picture[:, :, :2, :2].mean((2, 3)))
    assert channels_last(picture[:, :, :2, :3], 4).shape == (3, 6, 5)
    assert channels_last(torch.randn(3, 7), 4).shape == (3, 1, 7)
    assert channels_last(torch.randn(3, 9, 7), 4).shape == (3, 9, 7)


def test_the_distance_by_hand_and_zero_for_equals() -> None:
    teacher, student = make_net(1).eval(), make_net(2).eval()
    pairs = FeaturePairs(teacher, student, {"hidden": "hidden"}, EXAMPLE)
    with captured(student, ["hidden"]) as mine, captured(teacher, ["hidden"]) as theirs:
        student(X), teacher(X)
    s, t = mine["hidden"], theirs["hidden"]
    want = (s - t).square().sum() / t.square().sum()
    torch.testing.assert_close(pairs.distance(mine, theirs), want)
    assert float(pairs.distance(theirs, theirs).detach()) == 0.0
    fixed = FeaturePairs(teacher, student, ["hidden"], EXAMPLE, adapters=False)
    assert not any(p.requires_grad for p in fixed.parameters())
    with captured(student, ["hidden"]) as mine, captured(teacher, ["hidden"]) as theirs:
        student(X), teacher(X)
    torch.testing.assert_close(fixed.distance(mine, theirs), want)


def test_a_dead_feature_of_the_teacher_has_a_finite_distance() -> None:
    teacher, student = make_net(1).eval(), make_net(2).eval()
    with torch.no_grad():
        teacher.hidden.weight.zero_()
        teacher.hidden.bias.zero_()
    pairs = FeaturePairs(teacher, student, ["hidden"], EXAMPLE)
    with captured(student, ["hidden"]) as mine, captured(teacher, ["hidden"]) as theirs:
        student(X), teacher(X)
    distance = pairs.distance(mine, theirs)
    torch.testing.assert_close(distance, mine["hidden"].square().mean())
    view, data = pairs.as_regression(teacher, student, CalibrationSet.collect([X], X.device))
    batch = next(data.batches(len(X)))
    torch.testing.assert_close(F.mse_loss(view(batch.inputs), batch.targets), distance)


@pytest.mark.parametrize("names", [["stem", "hidden"], {"stem": "grouped", "hidden": "hidden"}])
def test_the_regression_is_the_distance(names) -> None:
    teacher, student = make_net(1).eval(), make_net(2).eval()
    pairs = FeaturePairs(teacher, student, names, EXAMPLE, seed=3)
    data = CalibrationSet.collect([(X, Y)], torch.device("cpu"))
    view, regression = pairs.as_regression(teacher, student, data, chunk=17)
    (batch,) = regression.batches(1000)
    torch.testing.assert_close(batch.inputs, X)
    mine, theirs = list(pairs.pairs), list(pairs.pairs.values())
    with captured(student, mine) as a, captured(teacher, theirs) as b:
        student(X), teacher(X)
    torch.testing.assert_close(F.mse_loss(view(X), batch.targets), pairs.distance(a, b))
    own = [n for n, _ in view.named_parameters() if not n.startswith("feature_adapters")]
    assert own == [n for n, _ in student.named_parameters()]
    assert "feature_adapters" not in dict(student.named_modules())
    assert view.stem is student.stem
    # gradients reach the student, other weights may be put in place of its own, copies are whole
    view(X).sum().backward()
    assert student.stem.weight.grad is not None
    weights = {k: v.detach() * 0 for k, v in student.named_parameters()}
    assert not torch.func.functional_call(view, weights, (X,)).any()
    other = copy.deepcopy(view)
    assert other.stem is not student.stem
    with torch.no_grad():
        other.stem.weight.zero_()
    assert not torch.equal(other(X), view(X))
    # the student itself still gives its logits
    assert student(X).shape == (60, 4)


def test_what_is_refused() -> None:
    teacher, student = make_net(1), make_net(2)
    with pytest.raises(TrainingError, match="one of each at least"):
        FeaturePairs(teacher, student, [], EXAMPLE)
    with pytest.raises(TrainingError, match="no module 'body'"):
        FeaturePairs(teacher, student, ["body"], EXAMPLE)
    with pytest.raises(TrainingError, match="positions"):
        FeaturePairs(teacher, student, {"stem": "hidden"}, EXAMPLE)

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Identity()

        def forward(self, x):
            self.inner(x.sum())
            return x

    with pytest.raises(TrainingError, match="gives no features"):
        FeaturePairs(Odd(), Odd(), ["inner"], EXAMPLE)
