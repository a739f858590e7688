"""The second loss: zero where teacher and student agree, blind to labels, and the engine's too."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from optiprune.structure import find_structure
from optiprune.training import (
    FeaturePairs,
    TrainingError,
    feature_masks,
    feature_unit_scores,
    feature_units,
    feature_weight_scores,
    train,
)
from optiprune.training.terms.features import captured

from .conftest import make_net, make_stripes

DATA = make_stripes(300, 0)
EXAMPLE = ((DATA[0][:2],), {})
NAMES = ["stem", "grouped", "hidden"]
FAST = {"preset": "fast", "config": {"curvature": {"samples": 60}, "batches": {"steps": 6}}}


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    net = make_net()
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    train(net, [DATA], optimizer, epochs=12, batch_size=50)
    return net.eval()


@pytest.fixture(scope="module")
def student(teacher) -> nn.Module:
    """The teacher a little trained on other pictures."""
    net = copy.deepcopy(teacher)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    train(net, [make_stripes(200, 9, 1.3)], optimizer, epochs=2, batch_size=50)
    net.zero_grad()
    return net.eval()


def distance(teacher, student, pairs) -> float:
    with captured(teacher, NAMES) as b, captured(student, NAMES) as a, torch.no_grad():
        teacher(DATA[0]), student(DATA[0])
        return float(pairs.distance(a, b))


def test_no_score_where_the_student_is_the_teacher(teacher, student) -> None:
    same = copy.deepcopy(teacher)
    pairs = FeaturePairs(teacher, same, NAMES, EXAMPLE)
    scores = feature_weight_scores(teacher, same, pairs, [DATA])
    assert scores.keys() == dict(same.named_parameters()).keys()
    assert all(not s.any() for s in scores.values())
    structure = find_structure(same, (DATA[0][:2],))
    units = feature_unit_scores(teacher, same, pairs, [DATA], structure)
    assert not any(u.any() for u in units.values())
    other = FeaturePairs(teacher, student, NAMES, EXAMPLE)
    assert feature_weight_scores(teacher, student, other, [DATA])["stem.weight"].all()
    assert all(p.grad is None for p in student.parameters())


def test_scores_are_the_first_order_change(teacher, student) -> None:
    pairs = FeaturePairs(teacher, student, NAMES, EXAMPLE)
    scores = feature_weight_scores(teacher, student, pairs, [DATA], chunk=300)["a.weight"]
    wide = copy.deepcopy(student).double()
    twin, double = copy.deepcopy(teacher).double(), copy.deepcopy(pairs).double()
    x = DATA[0].double()
    index = np.unravel_index(int(scores.argmax()), scores.shape)

    def at(scale: float) -> float:
        moved = copy.deepcopy(wide)
        with torch.no_grad():
            moved.a.weight[index] *= scale
            with captured(twin, NAMES) as b, captured(moved, NAMES) as a:
                twin(x), moved(x)
                return float(double.distance(a, b))

    slope = (at(1 + 1e-5) - at(1 - 1e-5)) / 2e-5
    assert float(scores[index]) == pytest.approx(abs(slope), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("decide", ["rule", "engine"])
def test_labels_are_not_looked_at(teacher, student, decide) -> None:
    x, y = DATA[0][:100], DATA[1][:100]
    shuffled = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(1))]
    pairs = FeaturePairs(teacher, student, NAMES, EXAMPLE)
    options = FAST if decide == "engine" else None
    found = [
        feature_masks(
            teacher, student, pairs, data, sparsity=0.6, decide=decide, engine=options, seed=1
        )
        for data in ([(x, y)], [(x, shuffled)])
    ]
    plans = [
        feature_units(teacher, student, pairs, data, {"parameters": 0.7}, decide=decide).plan
        for data in ([(x, y)], [(x, shuffled)], [x])
    ]
    assert all(torch.equal(found[1][k], found[0][k]) for k in found[0])
    assert plans[1].removed == plans[2].removed == plans[0].removed


@pytest.mark.slow
def test_the_engine_keeps_features_better(teacher, student) -> None:
    before = copy.deepcopy(student.state_dict())
    pairs = FeaturePairs(teacher, student, NAMES, EXAMPLE)
    far = {}
    for decide in ("rule", "engine"):
        masks = feature_masks(
            teacher,
            student,
            pairs,
            [DATA],
            sparsity=0.6,
            decide=decide,
            engine=FAST if decide == "engine" else None,
        )
        kept = sum(int(m.sum()) for m in masks.values())
        assert kept / sum(m.numel() for m in masks.values()) == pytest.approx(0.4, abs=5e-3)
        assert "head.weight" not in masks  # no feature depends on it
        work = copy.deepcopy(student)
        masks.apply(work)
        far[decide] = distance(teacher, work, pairs)
    assert far["engine"] < 0.7 * far["rule"]
    smaller = {
        d: feature_units(teacher, student, pairs, [DATA], {"parameters": 0.6}, decide=d)
        for d in ("rule", "engine")
    }
    for s in smaller.values():
        assert s.shrunk.parameters_after <= 0.6 * s.shrunk.parameters_before
    assert all(torch.equal(v, before[k]) for k, v in student.state_dict().items())
    assert not any(m._forward_hooks for m in (*student.modules(), *teacher.modules()))
    fitted = feature_units(
        teacher, student, pairs, [DATA], {"parameters": 0.6}, decide="engine", refit=True
    )
    assert fitted.plan.removed == smaller["engine"].plan.removed


@pytest.mark.slow
def test_where_all_scores_are_zero_the_engine_still_knows(teacher) -> None:
    """At equality first-order scores say nothing, second-order ones what is lost."""
    same = copy.deepcopy(teacher)
    pairs = FeaturePairs(teacher, same, NAMES, EXAMPLE)
    far = {}
    for decide in ("rule", "engine"):
        masks = feature_masks(
            teacher,
            same,
            pairs,
            [DATA],
            sparsity=0.5,
            decide=decide,
            engine=FAST if decide == "engine" else None,
        )
        work = copy.deepcopy(same)
        masks.apply(work)
        far[decide] = distance(teacher, work, pairs)
    assert far["engine"] < 0.5 * far["rule"]


@pytest.mark.slow
def test_a_container_as_student() -> None:
    """Its forward goes over all of its modules, of which the adapters are none."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 12), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(12, 4)).eval()
    pairs = FeaturePairs(model, model, ["1", "4"], EXAMPLE)
    x = DATA[0][:60]
    smaller = feature_units(model, model, pairs, [x], {"parameters": 0.8}, decide="engine")
    assert smaller.shrunk.parameters_after <= 0.8 * smaller.shrunk.parameters_before
    masks = feature_masks(model, model, pairs, [x], sparsity=0.5, decide="engine", engine=FAST)
    assert set(masks) == {"0.weight", "3.weight"}
    assert list(dict(model.named_children())) == ["0", "1", "2", "3", "4", "5"]


def test_what_is_refused(teacher, student) -> None:
    pairs = FeaturePairs(teacher, student, NAMES, EXAMPLE)
    with pytest.raises(TrainingError, match="sparsity = 1"):
        feature_masks(teacher, student, pairs, [DATA], sparsity=1.0)
    with pytest.raises(TrainingError, match="budgets"):
        feature_units(teacher, student, pairs, [DATA], {})
    plain = nn.Sequential(nn.Identity(), nn.Linear(4, 2))
    x = torch.randn(8, 4)
    nothing = FeaturePairs(plain, plain, ["0"], ((x[:2],), {}))
    with pytest.raises(TrainingError, match="depend on no Linear"):
        feature_masks(plain, plain, nothing, [x], sparsity=0.5)
    with pytest.raises(TrainingError, match="depend on no Linear"):
        feature_units(plain, plain, nothing, [x], {"parameters": 0.5})


def test_frozen_parameters_have_scores_too(teacher, student) -> None:
    frozen = copy.deepcopy(student).requires_grad_(False)
    pairs = FeaturePairs(teacher, student, NAMES, EXAMPLE)
    free = feature_weight_scores(teacher, student, pairs, [DATA])
    held = feature_weight_scores(teacher, frozen, pairs, [DATA])
    assert all(torch.equal(free[k], held[k]) for k in free)
    assert not any(p.requires_grad for p in frozen.parameters())
