"""Equally many samples of every class, whatever labels there are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from optiprune.training import TrainingError, train
from optiprune.training.rules.pruning_set import pruning_set

from .conftest import make_net, make_stripes


@pytest.fixture(scope="module")
def learnt() -> nn.Module:
    net = make_net()
    data = [make_stripes(400, 0, 0.5)]
    train(net, data, torch.optim.Adam(net.parameters(), lr=5e-3), epochs=6, batch_size=50)
    return net.eval()


def test_equally_many_of_every_class(learnt) -> None:
    x, y = make_stripes(300, 2, 0.5)
    found = pruning_set(learnt, [(x[:150], y[:150]), (x[150:], y[150:])], per_class=20, seed=1)
    (batch,) = found.data.batches(1000)
    assert batch.targets.bincount().tolist() == [20] * 4
    assert found.labels == "given"
    # each with its own label
    for image, label in zip(batch.inputs, batch.targets, strict=True):
        (at,) = torch.nonzero((x == image).flatten(1).all(1)).flatten().tolist()
        assert y[at] == label
    again = pruning_set(learnt, [(x, y)], per_class=20, seed=1)
    assert torch.equal(next(again.data.batches(1000)).inputs, batch.inputs)
    few = pruning_set(learnt, [(x[:30], y[:30])], per_class=20)
    assert few.data.n == 30


def test_labels_of_other_names(learnt) -> None:
    """Classes called 10, 7, 3 and 5 by the data; one of them is noise."""
    x, y = make_stripes(300, 2, 0.5)
    names = torch.tensor([10, 7, 3, 5])[y]
    x = x.clone()
    x[y == 2] = torch.randn(
        int((y == 2).sum()), 1, 8, 8, generator=torch.Generator().manual_seed(3)
    )
    found = pruning_set(learnt, [(x, names)], per_class=30, valid_rate=0.9)
    assert found.classes == (5, 7, 10)
    assert found.accuracy(learnt) > 0.9
    with pytest.raises(TrainingError, match="no class is valid"):
        pruning_set(learnt, [(torch.randn(200, 1, 8, 8), torch.arange(200) % 9)], valid_rate=1.0)


def test_without_labels_accuracy_is_agreement(learnt) -> None:
    x, _ = make_stripes(300, 2)
    found = pruning_set(learnt, [x], per_class=25)
    assert found.labels == "own"
    assert found.accuracy(learnt) == 1.0
    assert found.accuracy(make_net(5)) < 0.7


def test_what_is_refused(learnt) -> None:
    x, y = make_stripes(50, 2)
    for data, options, words in (
        ([(x, y)], {"per_class": 0}, "per_class = 0"),
        ([(x, y)], {"valid_rate": 1.5}, "valid_rate = 1.5"),
        ([(x, y.float())], {}, "needs class numbers"),
        ([(x, torch.stack([y, y], 1))], {}, "needs class numbers"),
    ):
        with pytest.raises(TrainingError, match=words):
            pruning_set(learnt, data, **options)
    with pytest.raises(TrainingError, match="one answer a sample"):
        pruning_set(nn.Conv2d(1, 4, 3), [x])


def test_labels_that_do_not_count_or_are_none_of_the_models(learnt) -> None:
    x, y = make_stripes(100, 2, 0.5)
    half = y.clone()
    half[:50] = -100
    found = pruning_set(learnt, [(x, half)], per_class=50)
    assert found.data.n == 50
    with pytest.raises(TrainingError, match=r"label \d is none of the model.s 4 classes"):
        pruning_set(learnt, [(x, y + 4)])
