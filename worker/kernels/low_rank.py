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

    def pack(self, pairs: Sequence[LowRank | None]) -> AddLowRank:
        """One layer's pairs by their adapters' numbers; None where the adapter leaves it alone."""
