"""The trained networks that pruning instances are cut out of, and what flows through their layers.

The recipes are versioned and seeded. The same recipe on another processor or torch version gives
weights that differ in the last digits, so that instances are identified by their content's hash,
and a set to compare on is exported once and passed around (`export_suite`).
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections import OrderedDict
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from optiprune.bench.errors import BenchError
from optiprune.durable import replacing

from .fashion_mnist import DatasetNotFoundError, directory, read_split

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["NETWORKS", "NetworkRecipe", "TrainedNetwork", "available", "trained_network"]

SAMPLES = 1000
"""Training samples whose activations and gradients make the curvature."""

Float = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class NetworkRecipe:
    """A fully connected ReLU network and how it is trained: Adam, then a linear decay to 0.

    Attributes
    ----------
    data : "digits" or "fashion"
    widths : inputs, hidden layers, classes
    epochs, batch, rate : passes, samples a step, Adam's learning rate
    decay_from : fraction of the steps after which the rate falls
    layers : (name, ...) of the layers that instances are cut out of
    """

    data: str
    widths: tuple[int, ...]
    epochs: int
    batch: int
    rate: float
    decay_from: float
    layers: tuple[str, ...]
    seed: int = 0
    version: int = 1


NETWORKS: dict[str, NetworkRecipe] = {
    "digits": NetworkRecipe("digits", (64, 256, 256, 10), 15, 64, 2e-3, 0.5, ("fc2",)),
    "fashion": NetworkRecipe("fashion", (784, 512, 512, 10), 8, 512, 1e-3, 0.75, ("fc1", "fc2")),
}


def available() -> tuple[list[str], list[str]]:
    """``(names, notes)``: networks whose data are here, and a word on each that is left out."""
    from importlib.util import find_spec

    names, notes = [], []
    if find_spec("sklearn") is None:
        notes.append("digits: left out; pip install 'optiprune[demo]' brings scikit-learn")
    else:
        names.append("digits")
    try:
        directory()
        names.append("fashion")
    except DatasetNotFoundError as e:
        notes.append(f"fashion: left out; {e}")
    return names, notes


class TrainedNetwork:
    """A trained network with its calibration samples.

    Parameters
    ----------
    model : modules fc1, relu1, fc2, ...
    x : (`SAMPLES`, features) of the training set
    """

    def __init__(self, model: nn.Sequential, x: Tensor) -> None:
        self._model, self._x = model, x
        self._captured: dict[str, tuple[Float, Float]] = {}

    def weights(self, layer: str) -> Float:
        """(outputs, inputs) of a layer."""
        return np.asarray(self._module(layer).weight.detach().double().numpy())

    def inputs(self, layer: str) -> Float:
        """(samples, inputs): what flows into a layer."""
        return self.capture(layer)[0]

    def capture(self, layer: str) -> tuple[Float, Float]:
        """Inputs (samples, inputs), and gradients (samples, outputs) by the layer's outputs.

        Those of each sample's logits, combined with standard normal factors of its own.
        """
        if layer in self._captured:
            return self._captured[layer]
        import torch

        seen: dict[str, Any] = {}

        def hook(_: Any, given: tuple[Any, ...], out: Any) -> None:
            out.retain_grad()
            seen["in"], seen["out"] = given[0].detach(), out

        handle = self._module(layer).register_forward_hook(hook)
        try:
            logits = self._model(self._x)
            factors = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
            (factors * logits).sum().backward()
        finally:
            handle.remove()
            self._model.zero_grad(set_to_none=True)
        found = seen["in"].double().numpy(), seen["out"].grad.double().numpy()
        self._captured[layer] = found
        return found

    def _module(self, layer: str) -> Any:
        return dict(self._model.named_children())[layer]


@lru_cache(maxsize=4)
def trained_network(name: str) -> TrainedNetwork:
    """The network of a recipe: trained now (seconds to minutes), or from the user's cache.

    The cache is ``$OPTIPRUNE_CACHE``, else ``$XDG_CACHE_HOME/optiprune``, else
    ``~/.cache/optiprune``. A file there remembers its recipe and torch; another one trains anew.

    Raises
    ------
    BenchError
        An unknown name, or data that are not here.
    """
    if name not in NETWORKS:
        raise BenchError(f"no network {name!r}; known: {', '.join(NETWORKS)}")
    import torch

    recipe = NETWORKS[name]
    x, y = _data(recipe)
    model = _build(recipe)
    path = _cache() / f"bench-{name}-v{recipe.version}.npz"
    mark = json.dumps({**asdict(recipe), "torch": torch.__version__}, sort_keys=True)
    state = _cached(path, mark)
    if state is None:
        _train(model, recipe, x, y)
        arrays = {k: v.numpy() for k, v in model.state_dict().items()}
        _keep(path, arrays, mark)
    else:
        model.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    return TrainedNetwork(model.eval(), x[:SAMPLES])


def _data(recipe: NetworkRecipe) -> tuple[Tensor, Tensor]:
    """Training samples (n, features) float32 and classes (n,)."""
    import torch

    if recipe.data == "digits":
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise BenchError(
                "the digits come with scikit-learn: pip install 'optiprune[demo]'"
            ) from None
        images, labels = load_digits(return_X_y=True)
        images = images / 16.0
    else:
        try:
            raw, labels = read_split("train")
        except DatasetNotFoundError as e:
            raise BenchError(str(e)) from None
        images = (raw.reshape(len(raw), -1).astype(np.float32) / 255.0 - 0.2860) / 0.3530
    x = torch.from_numpy(np.asarray(images, dtype=np.float32))
    return x, torch.from_numpy(np.asarray(labels, dtype=np.int64))


def _build(recipe: NetworkRecipe) -> nn.Sequential:
    """The untrained network; torch's global random state is neither read nor changed."""
    import torch
    from torch import nn

    generator = torch.Generator().manual_seed(recipe.seed)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    last = len(recipe.widths) - 1
    for i in range(1, last + 1):
        # constructors draw from the global generator; on the meta device they draw nothing
        linear = nn.Linear(recipe.widths[i - 1], recipe.widths[i], device="meta")
        linear = linear.to_empty(device="cpu")
        reach = recipe.widths[i - 1] ** -0.5
        nn.init.uniform_(linear.weight, -reach, reach, generator=generator)
        nn.init.uniform_(linear.bias, -reach, reach, generator=generator)
        layers[f"fc{i}"] = linear
        if i < last:
            layers[f"relu{i}"] = nn.ReLU()
    return nn.Sequential(layers)


def _train(model: nn.Sequential, recipe: NetworkRecipe, x: Tensor, y: Tensor) -> None:
    """In one thread: the order of sums, so the weights too, depend on the number of threads."""
    import torch

    order = torch.Generator().manual_seed(recipe.seed + 10_000)
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.rate)
    steps = recipe.epochs * -(-len(x) // recipe.batch)
    start = recipe.decay_from * steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda t: min(1.0, max(0.0, (steps - t) / (steps - start)))
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(recipe.epochs):
            for index in torch.randperm(len(x), generator=order).split(recipe.batch):
                optimizer.zero_grad(set_to_none=True)
                torch.nn.functional.cross_entropy(model(x[index]), y[index]).backward()
                optimizer.step()
                schedule.step()
    finally:
        torch.set_num_threads(threads)


def _cache() -> Path:
    own = os.environ.get("OPTIPRUNE_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "optiprune"


def _cached(path: Path, mark: str) -> dict[str, npt.NDArray[np.float32]] | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["recipe"]) != mark:
                return None
            return {k: file[k] for k in file.files if k != "recipe"}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def _keep(path: Path, arrays: dict[str, Any], mark: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            np.savez(temporary, recipe=np.array(mark), **arrays)
    except OSError:  # a home that cannot be written to: it trains anew the next time
        pass
