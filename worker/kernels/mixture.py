"""A mixture of experts (Shazeer et al. 2017): what kernels for it offer, and what they are given.

Each token goes to a few experts, which a router chooses, and gets what they make of it, weighted.
``reference/mixture.py`` is the plain form of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from worker.kernels.reference.linear import LinearOperation, PackLinear
from worker.kernels.reference.quantized import Weight


@dataclass(frozen=True, slots=True)
class Routing:
    """Which experts a token goes to: the most likely ones of a softmax, weighted by it."""

    chosen: int
    """For each token."""
    normalized: bool
    """Do the weights of those chosen add up to 1?"""


@dataclass(frozen=True, slots=True)
class Expert:
    """A gated feed-forward block."""

    first: LinearOperation
    """With its activation."""
    second: LinearOperation


class MixExperts(Protocol):
    """All experts of a layer."""

    @property
    def capturable(self) -> bool:
        """Whether it can be recorded: its launches depend on the number of tokens alone."""

    def __call__(self, x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """[T, hidden], and what the router makes of it [T, experts], to a new tensor [T, hidden].

        What a token gets depends on that token alone, not on the others of the step.
        """


MakeMixture = Callable[[Sequence[Expert], Routing], MixExperts]
"""Makes one of a layer's experts, once their weights are there."""


@dataclass(frozen=True, slots=True)
class ExpertPacks:
    """What makes the operations of experts, so that ``MakeMixture`` finds what it needs in them."""

    linear: PackLinear
    gated: Mapping[str, PackLinear]
    """By the name of the activation that follows."""


@dataclass(frozen=True, slots=True)
class Held:
    """A linear layer, and what it was made of."""

    weight: Weight
    bias: torch.Tensor | None
    operation: LinearOperation

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, in] to a new tensor [T, out]."""
        return self.operation(x)


def holding(pack: PackLinear) -> PackLinear:
    """The same; what it makes is ``Held``."""
    return lambda weight, bias: Held(weight, bias, pack(weight, bias))
