"""Magnitude, Wanda and RIA on layers small enough for paper and pencil."""

import pytest
import torch

from benchmarks.quality.baselines import RIA, BaselineError, LayerBudget, Magnitude, Wanda


def test_magnitude_in_a_row_and_in_a_layer(gram):
    weight = torch.tensor([[4.0, -3.0], [2.0, 1.0]])
    moments = gram(torch.eye(2))
    row, _ = Magnitude().prune(moments, weight, LayerBudget(0.5))
    assert row.tolist() == [[True, False], [True, False]]
    whole, _ = Magnitude().prune(moments, weight, LayerBudget(0.5, scope="layer"))
    assert whole.tolist() == [[True, True], [False, False]]


def test_wanda_hand_computed(gram):
    # norms 1, 8, 3: scores 4, 8, 3 and 3, 8, 9 (the example of small weights on large activations)
    moments = gram(torch.diag(torch.tensor([1.0, 64.0, 9.0])))
    weight = torch.tensor([[4.0, 1.0, 1.0], [-3.0, -1.0, 3.0]])
    assert Wanda.scores(moments, weight.double()).tolist() == [[4, 8, 3], [3, 8, 9]]
    mask, values = Wanda().prune(moments, weight, LayerBudget(1 / 3))
    assert mask.tolist() == [[False, True, False], [False, False, True]]
    assert values.tolist() == [[0, 1, 0], [0, 0, 3]]
    # within the layer both are in the second row
    mask, _ = Wanda().prune(moments, weight[[1, 0]] * torch.tensor([[1.0], [0.1]]),
                            LayerBudget(1 / 3, scope="layer"))  # fmt: skip
    assert mask.tolist() == [[False, True, True], [False, False, False]]


def test_wanda_is_magnitude_where_norms_are_equal(layer, gram):
    weight = layer().weight
    moments = gram(2.0 * torch.eye(16))
    budget = LayerBudget(0.4)
    assert torch.equal(
        Wanda().prune(moments, weight, budget)[0], Magnitude().prune(moments, weight, budget)[0]
    )


def test_wanda_takes_the_norms_of_the_rows_own_group(gram):
    H = torch.stack([torch.diag(torch.tensor([9.0, 1.0])), torch.diag(torch.tensor([1.0, 9.0]))])
    mask, _ = Wanda().prune(gram(H), torch.ones(4, 2), LayerBudget(0.5))
    assert mask.tolist() == [[True, False]] * 2 + [[False, True]] * 2


def test_ria_hand_computed(gram):
    # columns sum to 4 and 6, rows to 3 and 7; norms 16 and 1, whose roots are 4 and 1
    weight = torch.tensor([[1.0, -2.0], [3.0, 4.0]], dtype=torch.float64)
    moments = gram(torch.diag(torch.tensor([256.0, 1.0])))
    expected = [[(1 / 4 + 1 / 3) * 4, 2 / 6 + 2 / 3], [(3 / 4 + 3 / 7) * 4, 4 / 6 + 4 / 7]]
    assert RIA().scores(moments, weight).tolist() == [pytest.approx(e) for e in expected]
    without = RIA(power=0.0).scores(moments, weight)
    assert without[0].tolist() == pytest.approx([7 / 12, 1.0])


def test_ria_keeps_a_channel_that_magnitude_loses_whole(gram):
    """The paper's case for it: a column of small weights is gone under magnitude, all of it."""
    weight = torch.full((4, 4), 5.0)
    weight[:, 3] = torch.tensor([1.0, 0.1, 0.1, 0.1])
    moments, budget = gram(torch.eye(4)), LayerBudget(0.75, scope="layer")
    magnitude, _ = Magnitude().prune(moments, weight, budget)
    assert not magnitude[:, 3].any()
    # 1.0 is 1/1.3 of its column and 1/16 of its row, 0.83; the 5s of that row 1/4 + 5/16 = 0.56,
    # the other 5s 1/4 + 5/15.1 = 0.58
    mask, _ = RIA().prune(moments, weight, budget)
    assert mask[:, 3].tolist() == [True, False, False, False]
    assert mask.sum(1).tolist() == [3, 3, 3, 3]


def test_ria_sums_columns_within_a_group(gram):
    H = torch.eye(2)[None].repeat(2, 1, 1)
    weight = torch.tensor([[1.0, 1.0], [1.0, 3.0], [5.0, 5.0], [5.0, 15.0]], dtype=torch.float64)
    score = RIA().scores(gram(H), weight)
    assert torch.allclose(score[:2], score[2:])  # no group's scale reaches the other


def test_ria_refuses_a_bad_power():
    with pytest.raises(BaselineError, match="power must be a number >= 0, got -1"):
        RIA(power=-1.0)
