"""Normalisation layers."""

from collections.abc import Iterator

import torch

from worker.kernels.reference.norm import NormOperations
from worker.kernels.select import Kernels
from worker.layers.layer import Layer, Slot


class RMSNorm(Layer):
    """Root mean square norm, with or without the residual addition that comes before it."""

    def __init__(self, kernels: Kernels, size: int, epsilon: float) -> None:
        self._kernels = kernels
        self._size = size
        self._epsilon = epsilon
        self._operations: NormOperations

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, size] to a new tensor [T, size]."""
        return self._operations.norm(x)

    def after_adding(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Adds x to ``residual`` in place; the norm of the sum. All [T, size]."""
        return self._operations.add_norm(x, residual)

    def slots(self, path: str = "") -> Iterator[Slot]:
        """The weight."""
        yield Slot(f"{path}.weight", (self._size,), self._fill)

    def _fill(self, tensor: torch.Tensor) -> None:
        kernels = self._kernels
        weight = torch.empty(self._size, dtype=kernels.dtype, device=kernels.device).copy_(tensor)
        self._operations = kernels.prepare_norm(weight, self._epsilon)
