"""Groups of layers whose channels must be reordered together, without a graph of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from optiprune.curvature.data import Tree

from .members import find_holders, out_channels
from .probe import Arrivals, follow, holders_that_run

__all__ = ["Coupling", "Group", "find_groups"]


@dataclass(frozen=True, slots=True)
class Group:
    """Modules that hold the same channels, in one order.

    Attributes
    ----------
    channels : how many
    producers : layers whose output rows are these channels
    consumers : layer -> columns of its input that each channel owns; more than one behind a flatten
    carriers : modules in between with parameters for each channel -> entries that each one owns
    """

    channels: int
    producers: tuple[str, ...]
    consumers: Mapping[str, int]
    carriers: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Coupling:
    """What `find_groups` returns.

    Attributes
    ----------
    groups : in the order in which their first producers stand in the model
    faults : module that reads channels -> why these must stay in their order
    """

    groups: tuple[Group, ...]
    faults: Mapping[str, str]


def find_groups(model: nn.Module, inputs: Tree) -> Coupling:
    """Groups of coupled channels: all producers, consumers and carriers that share one order.

    Every Linear and Conv2d that runs has NaN put into some of its output channels. Two whose
    channels meet in a layer belong to one group: both inputs of a product, as in gated networks, or
    of a sum, as in residual ones. A group is left out if its channels reach the model's output, a
    module that is not known to treat channels one by one, or one that is shared or reparametrised.
    Channels that meet with some that no Linear or Conv2d makes are not told apart here: whether a
    group may be reordered is to be tried.

    Parameters
    ----------
    inputs : of the model, a sample or two; it is run once for each layer
    """
    holders = {h.name: h for h in holders_that_run(model, find_holders(model), inputs)}
    # one channel is read by all: it is no order
    makers = [h for h in holders.values() if h.mixes and out_channels(h.module) > 1]
    probes = [follow(model, h, holders, inputs) for h in makers]
    groups: list[Group] = []
    faults: dict[str, str] = {}
    for part in _joined(probes):
        consumers = {name: run for a in part for name, run in a.consumers.items()}
        fault = next((a.fault for a in part if a.fault), None) or _uneven(part)
        if fault is not None:
            stops = [a.stopped_at for a in part if a.stopped_at is not None]
            faults.update({name: fault for name in (*consumers, *stops) if name not in faults})
        elif consumers:
            carriers = {name: run for a in part for name, run in a.carriers.items()}
            groups.append(
                Group(part[0].channels, tuple(a.producer for a in part), consumers, carriers)
            )
    return Coupling(tuple(groups), faults)


def _joined(probes: list[Arrivals]) -> list[list[Arrivals]]:
    """Connected components: probes that meet in a consumer or carrier."""
    parts: list[tuple[set[str], list[Arrivals]]] = []
    for a in probes:
        reached = {*a.consumers, *a.carriers}
        members = [a]
        apart = []
        for seen, others in parts:
            if seen & reached:
                reached |= seen
                members = others + members
            else:
                apart.append((seen, others))
        parts = [*apart, (reached, members)]
    order = {a.producer: i for i, a in enumerate(probes)}
    joined = [sorted(members, key=lambda a: order[a.producer]) for _, members in parts]
    return sorted(joined, key=lambda members: order[members[0].producer])


def _uneven(part: list[Arrivals]) -> str | None:
    for a in part[1:]:
        if a.channels != part[0].channels:
            return (
                f"'{part[0].producer}' with {part[0].channels} channels and '{a.producer}' with "
                f"{a.channels} are read by the same layer"
            )
    return None
