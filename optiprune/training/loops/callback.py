"""What takes part in training beside the task's loss.

`train` calls these methods. A loop of one's own adds ``loss(step)`` to its loss before
``backward()`` and calls ``after_step(step)`` after ``optimizer.step()``, all of it inside
``with callback.attached():``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from optiprune.curvature import Batch

__all__ = ["Callback", "Step"]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One step of training.

    Attributes
    ----------
    index, total : which step, from 0, of how many
    epoch : from 0
    batch : what the model read, and targets if there are any
    outputs : of the model, with their graph
    """

    index: int
    total: int
    epoch: int
    batch: Batch
    outputs: Any


class Callback:
    """Does nothing; subclasses override what they need."""

    @property
    def name(self) -> str:
        """Of its state in a checkpoint."""
        return type(self).__name__

    def settings(self) -> dict[str, Any]:
        """What a checkpoint of a run with this callback is compared by: numbers and strings."""
        return {}

    def attached(self) -> AbstractContextManager[None]:
        """Entered before the first forward of training and left after the last step."""
        return nullcontext()

    def loss(self, step: Step) -> Tensor | None:
        """A scalar to be added to the loss of this step, or None."""
        return None

    def after_step(self, step: Step) -> None:
        """Called when the optimizer has moved the weights."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """Of its own, to be trained with the model's: the optimizer must hold them."""
        return ()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: tensors, numbers, strings, and lists and dicts of them."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
