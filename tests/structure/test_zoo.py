"""Networks of the benchmark's zoo at small sizes: groups, sizes and results of smaller ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from benchmarks.exactness.measured import difference, fresh, torch_macs
from benchmarks.exactness.plans import random_plan
from benchmarks.models.zoo import ZOO, Example, network, randomised
from benchmarks.models.zoo.branching import CSPNet, DenseNet, ResNeXt, ShuffleNetV2
from benchmarks.models.zoo.images import MLPMixer, MobileNetV3, SuperResolution, UNet
from benchmarks.models.zoo.plain import VGG16
from optiprune.structure import confirmed, find_structure, mask_units, shrink, total


def pictures(size: int = 32) -> Tensor:
    return torch.randn(2, 3, size, size)


SMALL: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    # network, size of its images, its groups
    "vgg": (lambda: VGG16(5, hidden=12, divide=16), 32, 15),
    "densenet": (lambda: DenseNet((2, 2), growth=4, classes=5), 32, 10),
    "resnext": (lambda: ResNeXt((1, 1), 5, base=16, groups=4), 32, 7),
    "shufflenet": (lambda: ShuffleNetV2((2, 1), (6, 12, 16, 20), 5), 32, 8),
    "csp": (lambda: CSPNet(7, base=4), 32, 25),
    "mobilenet": (lambda: MobileNetV3(5, blocks=4), 32, 9),
    "unet": (lambda: UNet(base=4, depth=2), 16, 12),
    "super-resolution": (lambda: SuperResolution(width=6, blocks=1), 8, 3),
    "mixer": (lambda: MLPMixer(32, width=16, depth=1, classes=5), 32, 2),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_smaller_network_is_the_masked_one_and_has_the_predicted_size(name: str) -> None:
    make, size, groups = SMALL[name]
    torch.manual_seed(0)
    example = randomised(Example(make(), (pictures(size),)), 0)
    model, args = example.model, example.args
    structure = confirmed(model, find_structure(model, args), args, {})
    assert len(structure.groups) == groups
    assert total(structure.multiply_adds, {}) == torch_macs(model, args, {})
    plan = random_plan(structure, 0)
    small = shrink(model, plan, args, structure=structure).model
    kept = plan.kept(structure)
    assert round(total(structure.parameters, kept)) == sum(p.numel() for p in small.parameters())
    assert total(structure.multiply_adds, kept) == pytest.approx(torch_macs(small, args, {}))
    mask_units(model, structure, plan)
    others, _ = fresh((args, {}), 1)
    with torch.no_grad():
        want, got = model(*others), small(*others)
    want, got = ([x] if isinstance(x, Tensor) else list(x) for x in (want, got))
    assert difference(want, got) < 1e-5


def test_weights_and_statistics_hide_nothing() -> None:
    example = randomised(Example(UNet(base=4, depth=1), (pictures(16),)), 0)
    for name, t in {
        **dict(example.model.named_parameters()),
        **dict(example.model.named_buffers()),
    }.items():
        if t.is_floating_point():
            assert float((t == 0).float().mean()) < 0.01, name
            assert float((t == 1).float().mean()) < 0.01, name
    again = randomised(Example(UNet(base=4, depth=1), (pictures(16),)), 0)
    for a, b in zip(example.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_unknown_network_is_refused_with_those_that_there_are() -> None:
    assert len(ZOO) >= 20
    with pytest.raises(ValueError, match="no network 'alexnet'; there are: vgg-16-bn"):
        network("alexnet")
