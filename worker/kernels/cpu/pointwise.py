"""CPU kernels in C: RMS norm and the gated SiLU, in float32 and bfloat16; the sampler's summary."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from worker.kernels.cpu.attention import ELEMENTS
from worker.kernels.cpu.library import Library
from worker.kernels.reference import norm as reference
from worker.kernels.reference.activation import Activation
from worker.kernels.reference.activation import silu_and_multiply as plain_silu
from worker.kernels.reference.norm import NormOperations
from worker.kernels.reference.sampling import Summary

_LANES = 16


@dataclass(frozen=True, slots=True)
class NativeNorm(NormOperations):
    """A norm in C, and what it is made of."""

    weight: torch.Tensor  # [size] float32
    epsilon: float


def prepare_norm(
    library: Library, dtype: torch.dtype, weight: torch.Tensor, epsilon: float
) -> NormOperations:
    """As the reference, for weights of ``dtype`` or float32; both are kept in float32."""
    size = len(weight)
    if size % _LANES:
        prepare = reference.prepare if weight.dtype == dtype else reference.prepare_wide
        return prepare(weight, epsilon)
    function = getattr(library, f"rms_norm_{ELEMENTS[dtype]}")
    weight = weight.float()
    address = weight.data_ptr()

    def norm(x: torch.Tensor) -> torch.Tensor:
        y = torch.empty(x.shape, dtype=dtype)
        x = x if x.stride(-1) == 1 and x.dim() == 2 else x.contiguous()
        rows = x.numel() // size
        stride = x.stride(0) if x.dim() == 2 else size
        function(x.data_ptr(), 0, address, y.data_ptr(), rows, size, stride, epsilon)
        return y

    def add_norm(x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        y = torch.empty(x.shape, dtype=dtype)
        sums = residual.data_ptr()
        function(x.data_ptr(), sums, address, y.data_ptr(), len(x), size, size, epsilon)
        return y

    return NativeNorm(norm, add_norm, weight, epsilon)


def silu_and_multiply(library: Library, dtype: torch.dtype) -> Activation:
    """As the reference."""
    return partial(_silu_and_multiply, getattr(library, f"silu_and_multiply_{ELEMENTS[dtype]}"))


def summarize(library: Library) -> Summary:
    """As the reference."""

    def summary(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows, size = logits.shape
        largest = torch.empty(rows, dtype=torch.int64)
        log_sums = torch.empty(rows, dtype=torch.float32)
        addresses = logits.data_ptr(), largest.data_ptr(), log_sums.data_ptr()
        library.summarize(*addresses, rows, size)
        return largest, log_sums

    return summary


def _silu_and_multiply(function: Callable[..., int], gate_and_up: torch.Tensor) -> torch.Tensor:
    rows, both = gate_and_up.shape
    width = both // 2
    if width % _LANES:
        return plain_silu(gate_and_up)
    y = gate_and_up.new_empty((rows, width))
    function(gate_and_up.data_ptr(), y.data_ptr(), rows, width)
    return y
