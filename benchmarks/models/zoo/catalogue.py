"""All networks of the zoo by name."""

from __future__ import annotations

import torch

from . import configured_images, configured_text, own
from .entry import Entry, Example, randomised

__all__ = ["ZOO", "network"]

ZOO: dict[str, Entry] = {**own.ENTRIES, **configured_images.ENTRIES, **configured_text.ENTRIES}


def network(name: str, seed: int = 0) -> Example:
    """A network in eval mode with random weights and statistics, decided by the seed alone.

    Raises
    ------
    ValueError
        There is none of that name; the error lists those that there are.
    ModuleNotFoundError
        It is built by transformers, which is not installed.
    """
    if name not in ZOO:
        raise ValueError(f"no network {name!r}; there are: {', '.join(ZOO)}")
    torch.manual_seed(seed)
    return randomised(ZOO[name].make(), seed)
