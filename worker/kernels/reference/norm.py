"""Reference kernels: RMS norm (Zhang and Sennrich 2019), alone and after a residual addition."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name


@dataclass(frozen=True, slots=True)
class NormOperations:
    """Both forms of one norm, with its weight and epsilon: what a kernel prepares at load."""

    norm: Callable[[torch.Tensor], torch.Tensor]
    """``x / sqrt(mean(x²) + epsilon) * weight`` in float32, over [T, size]; a new tensor."""
    add_norm: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    """(x, residual): adds x to ``residual`` in place, then ``norm(residual)``. All [T, size]."""


def prepare(weight: torch.Tensor, epsilon: float) -> NormOperations:
    """For a weight [size]; inputs and outputs have its dtype."""
    shape = weight.shape

    def norm(x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, shape, weight, epsilon)

    def add_norm(x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(residual.add_(x), shape, weight, epsilon)

    return NormOperations(norm, add_norm)
