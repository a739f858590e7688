"""The walk over stages gives the moments that the whole model would, block by block."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optiprune.curvature.chain import find_chains
from optiprune.curvature.data import CalibrationSet
from optiprune.curvature.gram import collect_grams
from optiprune.curvature.layers import find_layers
from optiprune.curvature.stages import LayerWalk

CPU = torch.device("cpu")


class Cache:
    """What a decoder fills as it runs: a block that is run twice would remember the first time."""

    def __init__(self):
        self.keys = {}

    def grown(self, block, keys):
        before = self.keys.get(block)
        self.keys[block] = keys if before is None else torch.cat([before, keys], 1)
        return self.keys[block]


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.o = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x, *, turn, cache=None):
        y = self.norm(x)
        q, k, v = self.q(y) * turn, self.k(y), self.v(y)
        if cache is not None:
            k = cache.grown(self, k)[:, -x.shape[1] :] + (len(cache.keys) > 99)
        x = x + self.o(F.scaled_dot_product_attention(q, k, v))
        return (x + self.down(F.relu(self.up(self.norm(x)))), None)


class Decoder(nn.Module):
    def __init__(self, width=6, depth=3, cached=False, tied=False):
        super().__init__()
        self.embed = nn.Linear(4, width)
        self.blocks = nn.ModuleList(Attention(width) for _ in range(depth))
        if tied:
            self.blocks[2].o.weight = self.blocks[0].o.weight
        self.head = nn.Linear(width, 3)
        self.cached = cached

    def forward(self, x):
        x = self.embed(x)
        turn, cache = (
            torch.linspace(0.5, 1.5, x.shape[1])[:, None],
            Cache() if self.cached else None,
        )
        for block in self.blocks:
            x = block(x, turn=turn, cache=cache)[0]
        return self.head(x)


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x):
        return F.relu_(self.body(x) + x)


def residual_net():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Sequential(Residual(4), Residual(4)),
        nn.Sequential(nn.Conv2d(4, 6, 3, stride=2), nn.ReLU(inplace=True), Residual(6)),
        nn.Flatten(),
        nn.Linear(6 * 9, 5),
    )


class Branches(nn.Module):
    """Members of a list that run side by side are no chain."""

    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(4, 3) for _ in range(3))
        self.last = nn.Linear(3, 2)

    def forward(self, x):
        return self.last(sum(head(x) for head in self.heads))


CASES = {
    "decoder": (Decoder, (5, 4), 1),
    "decoder with a cache": (lambda: Decoder(cached=True), (5, 4), 1),
    "decoder with tied blocks": (lambda: Decoder(tied=True), (5, 4), 0),
    "residual net": (residual_net, (2, 8, 8), 1),
    "branches": (Branches, (4,), 0),
}


def setting(case, seed=0, samples=(7, 3)):
    make, shape, chains = CASES[case]
    torch.manual_seed(seed)
    model = make().eval()
    sets = [CalibrationSet.collect([torch.randn(n, *shape)], CPU) for n in samples]
    layers = find_layers(model)
    dense = {layer.parameter: model.get_parameter(layer.parameter).detach() for layer in layers}
    return model, layers, dense, sets, chains


def halved(weight):
    return torch.where(weight.abs() >= weight.abs().median(), weight, 0.0)


@pytest.mark.parametrize("inputs", ["pruned", "dense", "pruned-only"])
@pytest.mark.parametrize("case", CASES)
def test_moments_are_those_of_the_whole_model(case, inputs):
    model, layers, dense, sets, chains = setting(case)
    walk = LayerWalk(model, layers, dense, sets, chunk=2, inputs=inputs)
    assert len(walk.chains) == chains
    seen = []
    for stage in walk:
        for layer in stage.layers:
            seen.append(layer)
            for data, grams in zip(sets, stage.grams, strict=True):
                first, second = {
                    "pruned": (dense, walk.weights),
                    "dense": (dense, None),
                    "pruned-only": (walk.weights, None),
                }[inputs]
                want = collect_grams(model, [layer], first, second, data)[layer.name]
                got = grams[layer.name]
                assert got.n == want.n
                for name in ("H", "C", "D", "mean"):
                    torch.testing.assert_close(
                        getattr(got, name), getattr(want, name), rtol=1e-5, atol=1e-7
                    )
        for layer in stage.layers:
            walk.weights[layer.parameter] = halved(dense[layer.parameter])
    assert seen == walk.order
    assert set(seen) == set(layers)


def test_layers_with_one_input_are_one_stage_and_share_moments():
    model, layers, dense, sets, _ = setting("decoder")
    stages = [
        [layer.name for layer in stage.layers] for stage in LayerWalk(model, layers, dense, sets)
    ]
    block = [["q", "k", "v"], ["o"], ["up"], ["down"]]
    blocks = [[f"blocks.{i}.{n}" for n in group] for i in range(3) for group in block]
    assert stages == [["embed"], *blocks, ["head"]]
    stage = next(s for s in LayerWalk(model, layers, dense, sets) if len(s.layers) == 3)
    first, *others = stage.grams[0].values()
    assert all(gram is first for gram in others)


def test_every_block_runs_a_few_times_however_deep_the_model_is():
    def forwards(depth):
        torch.manual_seed(0)
        model = Decoder(depth=depth).eval()
        calls = []
        model.blocks[-1].register_forward_hook(lambda *_: calls.append(1))
        layers = find_layers(model)
        dense = {layer.parameter: model.get_parameter(layer.parameter).detach() for layer in layers}
        data = CalibrationSet.collect([torch.randn(2, 5, 4)], CPU)
        for stage in LayerWalk(model, layers, dense, [data]):
            assert stage.grams
        return len(calls)

    assert forwards(8) == forwards(3)


def test_the_model_is_as_it_was():
    model, layers, dense, sets, _ = setting("residual net")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.train()
    for stage in LayerWalk(model, layers, dense, sets):
        assert stage.layers
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_block_that_needs_what_cannot_be_kept_is_no_chain():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x, table):
            return self.fc(x) + table.shift  # an object that is no tensor

    class Table:
        shift = 1.0

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(Reader() for _ in range(3))

        def forward(self, x):
            for block in self.blocks:
                x = block(x, Table())
            return x

    model = Model().eval()
    with torch.no_grad():
        assert find_chains(model, find_layers(model), {}, torch.randn(1, 4)) == []


def test_other_arguments_that_change_from_block_to_block_end_a_chain():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(Attention(4) for _ in range(4))

        def forward(self, x):
            a, b = torch.ones(1), torch.zeros(1)
            for i, block in enumerate(self.blocks):
                x: Tensor = block(x, turn=a if i < 2 else b)[0]
            return x

    model = Model().eval()
    with torch.no_grad():
        chains = find_chains(model, find_layers(model), {}, torch.randn(1, 3, 4))
    assert [[b.name for b in c.blocks] for c in chains] == [
        ["blocks.0", "blocks.1"],
        ["blocks.2", "blocks.3"],
    ]
