"""What a run has done so far, kept so that one that was killed can go on from there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save, save_file
from torch import Tensor

from optiprune.durable import Journal, JournalError

__all__ = ["JournalSteps", "NoSteps", "StepStore", "Stored", "stored_of"]

# contents of more bytes have a file of their own
_LONG = 4096
_RECORD = "record"


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """One step: tensors on the CPU, and a table that JSON can hold."""

    arrays: dict[str, Tensor]
    record: dict[str, Any]


class StepStore(Protocol):
    """Where steps are kept, by key.

    A run is the same sequence of steps each time, so what a step gave can be taken in its place.
    """

    def __contains__(self, key: str) -> bool: ...

    def get(self, key: str) -> Stored | None:
        """What was put under this key; None if nothing was."""

    def put(self, key: str, arrays: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Keep a step, in the place of one with the same key."""

    def check(self) -> None:
        """Called when the run has taken over what it put; KeyboardInterrupt ends it there."""


class NoSteps:
    """Nothing is kept."""

    def __contains__(self, key: str) -> bool:
        return False

    def get(self, key: str) -> Stored | None:
        return None

    def put(self, key: str, arrays: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        pass

    def check(self) -> None:
        pass


def stored_of(content: bytes | Path) -> Stored:
    """The step that a `Journal` holds these contents of.

    Raises
    ------
    JournalError
        They are no step of a run.
    """
    try:
        if isinstance(content, bytes):
            arrays = {name: t.clone() for name, t in load(content).items()}
            text = content[8 : 8 + int.from_bytes(content[:8], "little")]
            metadata = json.loads(text)["__metadata__"]
        else:
            with safe_open(content, "pt") as file:
                names = file.keys()
                arrays = {name: file.get_tensor(name).clone() for name in names}
                metadata = file.metadata()
        record = json.loads(metadata[_RECORD])
        if not isinstance(record, dict):
            raise ValueError("its record is no table")
    except (SafetensorError, ValueError, TypeError, KeyError, RecursionError) as e:
        where = content if isinstance(content, Path) else "a line of the journal"
        raise JournalError(f"{where} is no step of a run: {str(e)[:200]}") from e
    return Stored(arrays, record)


@dataclass(slots=True)
class JournalSteps:
    """Steps in a `Journal`, each a safetensors file, or a line if it is short.

    Attributes
    ----------
    stop : asked by `check`

    Raises
    ------
    JournalError
        A step that is taken is damaged.
    OSError
        A step cannot be written.
    """

    journal: Journal
    stop: Callable[[], bool] = lambda: False

    def __contains__(self, key: str) -> bool:
        return key in self.journal

    def get(self, key: str) -> Stored | None:
        found = self.journal.get(key)
        return None if found is None else stored_of(found)

    def put(self, key: str, arrays: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        own = {k: v.detach().cpu().contiguous() for k, v in arrays.items()}
        metadata = {_RECORD: json.dumps(record)}
        size = sum(v.numel() * v.element_size() for v in own.values()) + len(metadata[_RECORD])
        if size <= _LONG:
            self.journal.put(key, save(own, metadata))
        else:
            self.journal.put(key, lambda path: save_file(own, path, metadata))

    def check(self) -> None:
        if self.stop():
            raise KeyboardInterrupt
