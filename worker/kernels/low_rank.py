"""Low-rank pairs (LoRA, Hu et al. 2021) beside a linear layer: what kernels for them offer.

Each row of a step has at most one adapter; what the pair of its adapter makes of the row's input is
added to the layer's output. ``reference/low_rank.py`` is the plain form of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from worker.transfers import Integers


@dataclass(frozen=True, slots=True)
class LowRank:
    """One adapter's pair for one layer, or a shard's part of it; in the model's dtype."""

    down: torch.Tensor  # [rank, inputs]
    up: torch.Tensor  # [outputs, rank], times the adapter's scale


class AddLowRank(Protocol):
    """All adapters' pairs of one layer."""

    def __call__(self, y: torch.Tensor, x: torch.Tensor, plan: Any) -> None:
        """Add to y [T, outputs] what the rows' pairs make of x [T, inputs]."""


class LowRankKernel(Protocol):
    """How a device does it."""

    def plan(self, adapters: Integers, device: torch.device) -> Any:
        """Of a step: [T], the number of each row's adapter, -1 for none; one has one at least."""

    def room(self, rows: int, adapters: int) -> int:
        """Numbers that a plan takes of so many rows, whoever has which of so many adapters.

        Of fewer rows no more.
        """

    def lay_out(self, adapters: Integers, room: int) -> Integers:
        """These numbers: [room] int64 of [T] as for ``plan``. Zeros, of any T: nobody has one."""

    def laid_out(self, numbers: torch.Tensor, rows: int) -> Any:
        """The plan that they are on the device: [room] int64, which are read at each use.

        Its shapes, and what is launched, are the same whatever they say.
        """

    def pack(self, pairs: Sequence[LowRank | None]) -> AddLowRank:
        """One layer's pairs by their adapters' numbers; None where the adapter leaves it alone."""
