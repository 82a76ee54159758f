"""Reference kernel: a linear layer, and what may follow on it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from worker.kernels.reference.activation import Activation
from worker.kernels.reference.quantized import Quantized, Weight

LinearOperation = Callable[[torch.Tensor], torch.Tensor]
"""From [T, in] to a new tensor [T, out]."""
PackLinear = Callable[[Weight, torch.Tensor | None], LinearOperation]
"""What makes one of a weight [out, in] and a bias [out]."""
PackPlain = Callable[[torch.Tensor, torch.Tensor | None], LinearOperation]
"""The same of weights that are no codes."""
PackCodes = Callable[[Quantized, torch.Tensor | None], LinearOperation]
"""The same of those that are."""


def pack(weight: Weight, bias: torch.Tensor | None) -> LinearOperation:
    """``x @ weight.T + bias``; weight [out, in], bias [out]. Keeps the weight as it is."""
    if isinstance(weight, Quantized):
        return _pack_quantized(weight, bias)

    def apply(x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, weight, bias)

    return apply


def _pack_quantized(weight: Quantized, bias: torch.Tensor | None) -> LinearOperation:
    """The same; numbers are made of the codes each time, so that memory holds codes alone."""

    def apply(x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, weight.dequantized(x.dtype), bias)

    return apply


def either(plain: PackPlain, codes: PackCodes = _pack_quantized) -> PackLinear:
    """One for all weights."""

    def pack_either(weight: Weight, bias: torch.Tensor | None) -> LinearOperation:
        return codes(weight, bias) if isinstance(weight, Quantized) else plain(weight, bias)

    return pack_either


def widened(pack: PackLinear) -> PackLinear:
    """The same with its result in float32, the caller's to overwrite: an output layer."""

    def pack_wide(weight: Weight, bias: torch.Tensor | None) -> LinearOperation:
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


@runtime_checkable
class Closed(Protocol):
    """A linear layer that may have an activation inside, in one operation."""

    def opened(self) -> ActivatedLinear | None:
        """The same weights as two operations; None: it has none inside."""


def opened(operation: LinearOperation) -> ActivatedLinear | None:
    """A layer's sums, to which something may be added, and what follows; None: nothing does."""
    if isinstance(operation, ActivatedLinear):
        return operation
    return operation.opened() if isinstance(operation, Closed) else None
