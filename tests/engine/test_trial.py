"""The model is tried on the data before work begins."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from optiprune.curvature import CalibrationError, CalibrationSet, find_layers
from optiprune.engine.trial import try_model

CPU = torch.device("cpu")


class Words(nn.Module):
    """Counts how often its end is reached."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.inner, self.head = nn.Embedding(10, 4), nn.Linear(4, 4), nn.Linear(4, 10)
        self.ended = 0

    def forward(self, ids: Tensor) -> Tensor:
        out = self.head(self.inner(self.embed(ids)))
        self.ended += 1
        return out


def tried(model: nn.Module, batches: list[object], whole: bool = False) -> None:
    weights = {name: p.detach() for name, p in model.named_parameters()}
    data = CalibrationSet.collect([(b, None) for b in batches], CPU)
    try_model(model, weights, find_layers(model), None, [data, data], 2, whole)


def test_the_first_of_every_shape_goes_all_the_way() -> None:
    model = Words()
    tried(model, [torch.zeros(6, 3, dtype=torch.long), torch.zeros(3, 5, dtype=torch.long)])
    assert model.ended == 3  # (2, 3), (2, 5), (1, 5)
    tried(model, [torch.zeros(6, 3, dtype=torch.long)], whole=True)
    assert model.ended == 3 + 2 * 3


def test_other_names_or_types_are_another_shape() -> None:
    class Named(Words):
        def forward(self, ids: Tensor | None = None, others: Tensor | None = None) -> Tensor:
            return super().forward(others if ids is None else ids)

    model, ids = Named(), torch.zeros(2, 3, dtype=torch.long)
    tried(model, [{"ids": ids}, {"others": ids}, {"ids": ids.int()}, {"ids": ids}])
    assert model.ended == 3


@pytest.mark.parametrize("at", [0, 3, 5])
def test_tokens_that_no_embedding_has_are_found_wherever_they_are(at: int) -> None:
    ids = torch.zeros(6, 3, dtype=torch.long)
    ids[at, 1] = 10
    with pytest.raises(CalibrationError, match=r"raised IndexError on inputs of \(2, 3\) int64"):
        tried(Words(), [ids])


def test_inputs_of_another_width_are_found() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    with pytest.raises(CalibrationError, match=r"\(2, 4\) float32"):
        tried(model, [torch.zeros(4, 3), torch.zeros(2, 4)])
