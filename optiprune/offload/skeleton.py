"""A causal language model of transformers without its weights, and one block of it with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from optiprune.curvature.chain import same_but_for_rounding

from .checkpoint import Checkpoint
from .errors import ModelDirectoryError
from .experts import LinearExperts, fused_experts
from .places import Place, find_places, owner_of

__all__ = ["Skeleton", "open_skeleton"]


@dataclass(frozen=True, slots=True, eq=False)
class Skeleton:
    """The modules of a model on the meta device; what a module is run with is read when it is run.

    Attributes
    ----------
    model : with Linear layers where the original has Conv1D or fused experts
    checkpoint : where the weights are
    blocks : names of the modules that run one after another
    places : parameter or buffer name -> where the checkpoint has it
    owners : parameter name -> where it lies in the model as transformers makes it
    shapes : parameter name of that model -> shape
    fused : name of experts -> the module that they stand for
    device : to run on
    """

    model: nn.Module
    checkpoint: Checkpoint
    blocks: tuple[str, ...]
    places: Mapping[str, Place]
    owners: Mapping[str, Place]
    shapes: Mapping[str, tuple[int, ...]]
    fused: Mapping[str, nn.Module]
    device: torch.device

    def block(self, name: str) -> nn.Module:
        return self.model.get_submodule(name)

    def tensor(self, name: str) -> Tensor:
        """A parameter or buffer, as it is now."""
        at, _, leaf = name.rpartition(".")
        found: Tensor = getattr(self.model.get_submodule(at), leaf)
        return found

    def inside(self, name: str) -> list[str]:
        """Parameters and buffers of a block that the checkpoint has."""
        return [n for n in self.places if n.startswith(f"{name}.")]

    def outside(self) -> list[str]:
        """Those of no block."""
        blocks = tuple(f"{name}." for name in self.blocks)
        return [n for n in self.places if not n.startswith(blocks)]

    def linear_layers(self) -> list[str]:
        """Names of the Linear layers in blocks, without those that choose experts."""
        blocks = tuple(f"{name}." for name in self.blocks)
        return [
            n
            for n, m in self.model.named_modules()
            if isinstance(m, nn.Linear) and n.startswith(blocks) and not _routes(n)
        ]

    def unseen_weights(self) -> dict[str, int]:
        """Parameters of blocks with three dimensions or more, which no layer is: name -> size."""
        blocks = tuple(f"{name}." for name in self.blocks)
        named = self.model.named_parameters()
        return {n: p.numel() for n, p in named if p.ndim > 2 and n.startswith(blocks)}

    @contextmanager
    def loaded(self, names: Sequence[str]) -> Iterator[None]:
        """Inside, these parameters and buffers hold what the checkpoint has, in float32."""
        try:
            for name in names:
                self._set(name, self.read(name))
            yield
        finally:
            for name in names:
                self._set(name, None)

    def read(self, name: str) -> Tensor:
        """What the checkpoint has, float32, on the device, in the skeleton's orientation."""
        place = self.places[name]
        part = self.checkpoint.read(place.tensor, place.index, place.rows)
        part = part.t() if place.transposed else part
        return part.to(device=self.device, dtype=torch.float32).contiguous()

    def _set(self, name: str, value: Tensor | None) -> None:
        """``None``: back to the meta device."""
        at, _, leaf = name.rpartition(".")
        module = self.model.get_submodule(at)
        table: Any = module._parameters if leaf in module._parameters else module._buffers
        new = torch.empty_like(table[leaf], device="meta") if value is None else value
        table[leaf] = nn.Parameter(new, requires_grad=False) if table is module._parameters else new


def open_skeleton(
    folder: Path, *, trust_remote_code: bool = False, device: torch.device | None = None
) -> Skeleton:
    """The model of a directory that ``save_pretrained`` wrote; nothing is fetched.

    Raises
    ------
    ModelDirectoryError
        It is no causal language model of transformers, it asks for code of its own, or its weights
        do not fit, see `Checkpoint.open` and `find_places`.
    """
    try:
        import transformers
    except ImportError as e:
        raise ModelDirectoryError(
            f"models in a directory are read with transformers ({e}): pip install "
            "'optiprune[transformers]'"
        ) from None
    if not (folder / "config.json").is_file():
        raise ModelDirectoryError(f"{folder} holds no config.json: it is no model of transformers")
    checkpoint = Checkpoint.open(folder)
    model = _on_meta(transformers, folder, trust_remote_code)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    transposed = _plain_linear(model, transformers.pytorch_utils.Conv1D)
    fused, hidden = _plain_experts(model)
    names = [name for name, _ in model.named_parameters()]
    owners = {}
    for n in names:
        width = next((h for at, h in hidden.items() if n.startswith(at)), None)
        owners[n] = owner_of(n, n in transposed, width)
    stored = {n: b for n, b in model.named_buffers() if n in checkpoint.tensors}
    all_shapes = {n: tuple(t.shape) for n, t in [*model.named_parameters(), *stored.items()]}
    wanted = {**owners, **{n: Place(n) for n in stored}}
    places = find_places(wanted, all_shapes, checkpoint, str(model.base_model_prefix))
    device = torch.device("cpu") if device is None else device
    _fill_buffers(model, set(stored), device)
    return Skeleton(model.eval(), checkpoint, _blocks(model), places, owners, shapes, fused, device)


def _routes(name: str) -> bool:
    """Whether a layer chooses experts, by the names in use."""
    *_, above, leaf = ["", *name.split(".")]
    return leaf in ("router", "shared_expert_gate") or above == "router" or leaf == "gate"


def _on_meta(transformers: Any, folder: Path, trust_remote_code: bool) -> Any:
    try:
        config = transformers.AutoConfig.from_pretrained(
            folder, trust_remote_code=trust_remote_code, local_files_only=True
        )
        if getattr(config, "is_encoder_decoder", False):
            raise ModelDirectoryError(f"{folder}: an encoder with a decoder is no chain of blocks")
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(
                config, trust_remote_code=trust_remote_code, dtype=torch.float32
            )
    except (ValueError, OSError, KeyError, TypeError, ImportError, RecursionError) as e:
        if isinstance(e, ModelDirectoryError):
            raise
        raise ModelDirectoryError(f"{folder}: {type(e).__name__}: {e}") from e
    model.config.use_cache = False
    return model


def _plain_linear(model: nn.Module, conv1d: type[nn.Module]) -> set[str]:
    """Put Linear layers in the place of Conv1D and of classes of a family's own that compute the
    same; names of the weights that are stored transposed."""
    modules: list[tuple[str, Any]] = list(model.named_modules())
    transposed = {name: old.weight.shape for name, old in modules if type(old) is conv1d}
    own = {name: old.weight.shape[::-1] for name, old in modules if _multiplies(old)}
    for name, (inputs, outputs) in {**transposed, **own}.items():
        old: Any = model.get_submodule(name)
        with torch.device("meta"):
            new = nn.Linear(inputs, outputs, bias=old.bias is not None)
        _replace(model, name, new)
    return {f"{name}.weight" for name in transposed}


def _multiplies(module: nn.Module) -> bool:
    """Whether a Linear layer with a ``forward`` of its own is one in all but its class, tried with
    weights and inputs that tell columns and rows apart."""
    if not isinstance(module, nn.Linear) or type(module).forward is nn.Linear.forward:
        return False
    rows, cols = module.weight.shape
    draw = torch.Generator().manual_seed(0)
    left, right, x = (
        torch.randn(*shape, generator=draw) for shape in ((rows, 1), (cols,), (2, cols))
    )
    weights = {"weight": left * right}
    if module.bias is not None:
        weights["bias"] = torch.randn(rows, generator=draw)
    if {name for name, _ in (*module.named_parameters(), *module.named_buffers())} != set(weights):
        return False
    try:
        with torch.no_grad():
            got = torch.func.functional_call(module, weights, (x,))
    except Exception:  # whatever a family's own code raises
        return False
    want = nn.functional.linear(x, weights["weight"], weights.get("bias"))
    return same_but_for_rounding(got, want)


def _plain_experts(model: nn.Module) -> tuple[dict[str, nn.Module], dict[str, int]]:
    """Put Linear layers in the place of fused experts: (what was there, width of one), by name."""
    fused = {name: module for name, module in model.named_modules() if fused_experts(module)}
    hidden = {}
    for name, module in fused.items():
        with torch.device("meta"):
            experts = LinearExperts(module)
        hidden[f"{name}."] = experts.hidden
        _replace(model, name, experts)
    return fused, hidden


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    at, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(at), leaf, module)


def _fill_buffers(model: Any, stored: set[str], device: torch.device) -> None:
    """Give buffers that no checkpoint has (rotary frequencies) the values that they begin with."""
    for name, module in model.named_modules():
        own = [b for b in module._buffers if module._buffers[b] is not None]
        own = [b for b in own if f"{name}.{b}" not in stored and module._buffers[b].is_meta]
        if not own:
            continue
        first, second = (_begun(model, name, module, own, fill, device) for fill in (0, 1))
        for b in own:
            if not torch.equal(first[b], second[b]):
                raise ModelDirectoryError(
                    f"the buffer '{name}.{b}' is in no checkpoint, and transformers does not say "
                    "what it begins with"
                )


def _begun(
    model: Any, name: str, module: Any, buffers: list[str], fill: int, device: torch.device
) -> dict[str, Tensor]:
    """Buffers of a module after its initialisation, which was given them full of one number."""
    owner = model  # the innermost model of transformers around the module
    at = model
    for part in filter(None, name.split(".")):
        at = getattr(at, part)
        owner = at if hasattr(at, "_init_weights") else owner
    for b in buffers:
        old = module._buffers[b]
        module._buffers[b] = torch.full(old.shape, fill, dtype=old.dtype, device=device)
    try:
        owner._init_weights(module)
    except Exception as e:  # whatever a family's own code raises
        raise ModelDirectoryError(
            f"the buffers of '{name}' cannot be made: {type(e).__name__}: {e}"
        ) from e
    return {b: module._buffers[b].clone() for b in buffers}


def _blocks(model: nn.Module) -> tuple[str, ...]:
    """Names of the modules of the list that holds most of the weights."""
    lists = {n: m for n, m in model.named_modules() if type(m) is nn.ModuleList and len(m)}
    sizes = {n: sum(p.numel() for p in m.parameters()) for n, m in lists.items()}
    if not sizes:
        raise ModelDirectoryError(
            f"{type(model).__name__} has no list of blocks; it can be pruned as a whole with "
            "optimize_masks"
        )
    name = max(sizes, key=lambda n: sizes[n])
    return tuple(f"{name}.{i}" for i in range(len(lists[name])))
