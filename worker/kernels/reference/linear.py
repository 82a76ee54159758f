"""Reference kernel: a linear layer, and what may follow on it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from worker.kernels.reference.activation import Activation

LinearOperation = Callable[[torch.Tensor], torch.Tensor]
"""From [T, in] to a new tensor [T, out]."""
PackLinear = Callable[[torch.Tensor, torch.Tensor | None], LinearOperation]
"""What makes one of a weight [out, in] and a bias [out]."""


def pack(weight: torch.Tensor, bias: torch.Tensor | None) -> LinearOperation:
    """``x @ weight.T + bias``; weight [out, in], bias [out]. Keeps the weight as it is."""

    def apply(x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, weight, bias)

    return apply


def widened(pack: PackLinear) -> PackLinear:
    """The same with its result in float32, the caller's to overwrite: an output layer."""

    def pack_wide(weight: torch.Tensor, bias: torch.Tensor | None) -> LinearOperation:
        apply = pack(weight, bias)
        return lambda x: apply(x).float()

    return pack_wide


@dataclass(frozen=True, slots=True)
class ActivatedLinear:
    """A linear layer and the activation that follows it."""

    linear: LinearOperation
    activation: Activation

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, in] to a new tensor [T, out], or half as wide where the activation is gated."""
        return self.activation(self.linear(x))


def activated(pack: PackLinear, activation: Activation) -> PackLinear:
    """The same followed by an activation; if that is gated, of weights with the gates first."""
    return lambda weight, bias: ActivatedLinear(pack(weight, bias), activation)
