"""Temperatures from the share of moves that would be accepted at a local optimum.

As in the native `annealing`, with one difference: a share is a sum of exponentials, and neither
``exp`` nor a sum along a dimension is the same to the last bit in every batch. Here ``exp(-u)`` is
``(1 + u/64) ** -64`` by squaring, and sums add neighbours, then neighbouring pairs, and so on, so
that padding with zeros changes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

__all__ = ["Ladder", "Temperatures"]

_SQUARINGS = 6
# bisections of log T, which narrow the bracket to a percent of T or less
_BISECTIONS = 14


@dataclass(frozen=True, slots=True)
class Temperatures:
    """First and last temperature: given in units of the energy, or by the share of moves accepted.

    Attributes
    ----------
    start, end : in units of the energy; None: by the shares
    start_rate, end_rate : shares of accepted moves, between 0 and 1
    """

    start: float | None
    end: float | None
    start_rate: float
    end_rate: float

    def choose(
        self,
        changes: torch.Tensor,
        moves: torch.Tensor,
        margin: torch.Tensor,
        exponent: npt.NDArray[np.int64],
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """First and last temperature of each problem, in the batch's units, shape (B,) each.

        Parameters
        ----------
        changes : (B, S, W) float32, what S tries would change the energy by, for each of their
            choices; inf where there is none. One of the choices is taken, or none (heat bath);
            with W = 1 by Metropolis' rule.
        moves : (B,) tries that are not padding
        margin : (B,) changes up to here are rounding
        """
        hot = self._by_rate(changes, moves, margin, self.start_rate, self.start, exponent)
        cold = self._by_rate(changes, moves, margin, self.end_rate, self.end, exponent)
        return hot, np.minimum(cold, hot)

    @staticmethod
    def _by_rate(
        changes: torch.Tensor,
        moves: torch.Tensor,
        margin: torch.Tensor,
        rate: float,
        given: float | None,
        exponent: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.float64]:
        import torch

        if given is not None:
            return np.asarray(np.ldexp(given, -exponent))
        up = changes.clamp(min=0.0)
        true = (up > margin[:, None, None]) & up.isfinite()
        low = torch.where(true, up, math.inf).amin((1, 2)).double() * 1e-3
        high = torch.where(true, up, 0.0).amax((1, 2)).double() * 1e3
        for _ in range(_BISECTIONS):
            middle = (low * high).sqrt()
            hot = accepted_share(up, moves, middle) >= rate
            high = torch.where(hot, middle, high)
            low = torch.where(hot, low, middle)
        # without any gap all moves are free, or there are none
        t = torch.where(true.any(2).any(1), (low * high).sqrt(), 0.0)
        return np.asarray(t.cpu().numpy())


def accepted_share(up: torch.Tensor, moves: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """(B,) share of the tries that come to a move at temperatures t (B,); arguments as above."""
    p = (up / (t.to(up.dtype)[:, None, None] * (1 << _SQUARINGS))).add_(1.0)
    for _ in range(_SQUARINGS):
        p.mul_(p)
    p.reciprocal_()
    if p.shape[2] == 1:
        each = p[:, :, 0]
    else:
        z = sum_in_pairs(p)
        each = z / (z + 1.0)
    return sum_in_pairs(each) / moves


def sum_in_pairs(a: torch.Tensor) -> torch.Tensor:
    """The sum along the last dimension, the same however many zeros follow."""
    import torch

    while a.shape[-1] > 1:
        if a.shape[-1] % 2:
            a = torch.nn.functional.pad(a, (0, 1))
        a = a[..., 0::2] + a[..., 1::2]
    return a[..., 0]


class Ladder:
    """Temperatures that fall geometrically, sweep by sweep.

    Parameters
    ----------
    hot, cold : (B,) temperatures of the first and the last sweep, float64
    sweeps : (B,) how many sweeps there are; after them the last temperature stays
    """

    def __init__(
        self,
        hot: npt.NDArray[np.float64],
        cold: npt.NDArray[np.float64],
        sweeps: npt.NDArray[np.int64],
    ) -> None:
        self._sweeps = sweeps
        self._ratio = np.ones(len(hot))
        for b in np.flatnonzero(hot > 0):
            exponent = 1.0 / max(1, int(sweeps[b]) - 1)
            self._ratio[b] = (float(cold[b]) / float(hot[b])) ** exponent
        self._now = hot.astype(np.float64)
        self._sweep = np.zeros(len(hot), np.int64)

    def rungs(self, wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """(c, B) temperatures of the sweeps ``wanted`` (c, B), ascending and never asked for again.

        Each is the one before times the ratio, whichever way the calls are cut.
        """
        wanted = np.minimum(wanted, self._sweeps - 1)
        out = np.empty(wanted.shape)
        for c, sweep in enumerate(wanted):
            while (behind := self._sweep < sweep).any():
                self._now = np.where(behind, self._now * self._ratio, self._now)
                self._sweep += behind
            out[c] = self._now
        return out

    def keep(self, problems: npt.NDArray[np.int64]) -> None:
        """Go on with some of the problems."""
        self._sweeps, self._ratio = self._sweeps[problems], self._ratio[problems]
        self._now, self._sweep = self._now[problems], self._sweep[problems]
