"""Reference kernels: RMS norm and layer norm, alone, after a residual addition, and of heads."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name


@dataclass(frozen=True, slots=True)
class NormOperations:
    """Both forms of one norm, with its weight and epsilon: what a kernel prepares at load."""

    norm: Callable[[torch.Tensor], torch.Tensor]
    """Of [..., size]; a new tensor."""
    add_norm: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    """(x, residual): adds x to ``residual`` in place, then ``norm(residual)``. All [T, size]."""


@dataclass(frozen=True, slots=True)
class HeadNorms:
    """Norms of every head of queries and of keys, before they are rotated (Qwen3)."""

    queries: NormOperations
    keys: NormOperations

    def apply_(self, qkv: torch.Tensor, heads: int, kv_heads: int) -> None:
        """In place: qkv [T, heads + 2 · kv heads, head_dim]."""
        queries, keys = qkv[:, :heads], qkv[:, heads : heads + kv_heads]
        queries.copy_(self.queries.norm(queries))
        keys.copy_(self.keys.norm(keys))


def prepare(weight: torch.Tensor, epsilon: float) -> NormOperations:
    """RMS norm (Zhang and Sennrich 2019): ``x / sqrt(mean(x²) + epsilon) * weight`` in float32.

    For a weight [size]; inputs and outputs have its dtype.
    """
    shape = weight.shape
    return _operations(lambda x: F.rms_norm(x, shape, weight, epsilon))


def prepare_wide(weight: torch.Tensor, epsilon: float) -> NormOperations:
    """The same for a float32 weight, whatever the dtype of inputs and outputs."""
    shape = weight.shape
    return _operations(lambda x: F.rms_norm(x.float(), shape, weight, epsilon).to(x.dtype))


def prepare_layer(weight: torch.Tensor, bias: torch.Tensor, epsilon: float) -> NormOperations:
    """Layer norm (Ba et al. 2016): the same of ``x - mean(x)``, plus a bias [size]."""
    shape = weight.shape
    return _operations(lambda x: F.layer_norm(x, shape, weight, bias, epsilon))


def _operations(norm: Callable[[torch.Tensor], torch.Tensor]) -> NormOperations:
    return NormOperations(norm, lambda x, residual: norm(residual.add_(x)))
