"""Normalisation layers."""

from collections.abc import Iterator
from functools import partial

import torch

from worker.kernels.reference.norm import NormOperations
from worker.kernels.select import Kernels
from worker.layers.layer import Layer, Slot


class Norm(Layer):
    """A norm, with or without the residual addition that comes before it."""

    def __init__(self) -> None:
        self._operations: NormOperations

    @property
    def operations(self) -> NormOperations:
        """What has been made of the weights, once they are all there."""
        return self._operations

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[..., size] to a new tensor [..., size]."""
        return self._operations.norm(x)

    def after_adding(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Adds x to ``residual`` in place; the norm of the sum. All [T, size]."""
        return self._operations.add_norm(x, residual)


class RMSNorm(Norm):
    """Root mean square norm."""

    def __init__(self, kernels: Kernels, size: int, epsilon: float, offset: float = 0.0) -> None:
        """``offset`` is added to the checkpoint's weight (Gemma: 1), which then stays in float32:
        in 16 bits the sum would lose what the checkpoint has kept.
        """
        super().__init__()
        self._kernels = kernels
        self._size = size
        self._epsilon = epsilon
        self._offset = offset

    def slots(self, path: str = "") -> Iterator[Slot]:
        """The weight."""
        yield Slot(f"{path}.weight", (self._size,), self._fill)

    def _fill(self, tensor: torch.Tensor) -> None:
        kernels = self._kernels
        dtype = torch.float32 if self._offset else kernels.dtype
        weight = torch.empty(self._size, dtype=dtype, device=kernels.device).copy_(tensor)
        if self._offset:
            weight.add_(self._offset)
        prepare = kernels.prepare_norm if dtype == kernels.dtype else kernels.prepare_wide_norm
        self._operations = prepare(weight, self._epsilon)


class LayerNorm(Norm):
    """Layer norm with a bias."""

    def __init__(self, kernels: Kernels, size: int, epsilon: float) -> None:
        super().__init__()
        self._kernels = kernels
        self._size = size
        self._epsilon = epsilon
        self._tensors: dict[str, torch.Tensor] = {}

    def slots(self, path: str = "") -> Iterator[Slot]:
        """Weight and bias."""
        for name in ("weight", "bias"):
            yield Slot(f"{path}.{name}", (self._size,), partial(self._fill, name))

    def _fill(self, name: str, tensor: torch.Tensor) -> None:
        kernels = self._kernels
        copy = torch.empty(self._size, dtype=kernels.dtype, device=kernels.device).copy_(tensor)
        self._tensors[name] = copy
        if len(self._tensors) == 2:
            weight, bias = self._tensors["weight"], self._tensors["bias"]
            self._operations = kernels.prepare_layer_norm(weight, bias, self._epsilon)
