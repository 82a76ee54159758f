"""Reference kernel: a linear layer."""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

LinearOperation = Callable[[torch.Tensor], torch.Tensor]
"""From [T, in] to a new tensor [T, out]."""


def pack(weight: torch.Tensor, bias: torch.Tensor | None) -> LinearOperation:
    """``x @ weight.T + bias``; weight [out, in], bias [out]. Keeps the weight as it is."""

    def apply(x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, weight, bias)

    return apply


def widened(operation: LinearOperation) -> LinearOperation:
    """The same with its result in float32, the caller's to overwrite: an output layer."""
    return lambda x: operation(x).float()
