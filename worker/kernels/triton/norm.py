"""Triton kernel: RMS norm, alone and after a residual addition: one pass over a row."""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from worker.kernels.reference.norm import NormOperations
from worker.kernels.triton.launch import early, follow


@dataclass(frozen=True, slots=True)
class TritonNorm(NormOperations):
    """A norm in Triton, and what it is made of: kernels that do more read its weight."""

    weight: torch.Tensor  # [size], the model's dtype or float32
    epsilon: float


@triton.jit
def _normalise(
    x,
    x_row,
    residual,
    weight,
    output,
    epsilon,
    SIZE: tl.constexpr,
    CHANNELS: tl.constexpr,
    ADDING: tl.constexpr,
    EARLY: tl.constexpr,
):
    """One row: x [T, size], residual [T, size] which x is added to if ADDING, output [T, size]."""
    follow(EARLY)
    row = tl.program_id(0).to(tl.int64)
    channels = tl.arange(0, CHANNELS)
    inside = channels < SIZE
    value = tl.load(x + row * x_row + channels, mask=inside, other=0.0).to(tl.float32)
    if ADDING:
        where = residual + row * SIZE + channels
        value += tl.load(where, mask=inside, other=0.0).to(tl.float32)
        # What is normalised is the sum as it is kept: rounded.
        rounded = value.to(residual.dtype.element_ty)
        tl.store(where, rounded, mask=inside)
        value = rounded.to(tl.float32)
    shrink = tl.rsqrt(tl.sum(value * value, 0) * (1.0 / SIZE) + epsilon)
    factor = tl.load(weight + channels, mask=inside, other=0.0).to(tl.float32)
    result = (value * shrink * factor).to(output.dtype.element_ty)
    tl.store(output + row * SIZE + channels, result, mask=inside)


def prepare_norm(weight: torch.Tensor, epsilon: float) -> NormOperations:
    """As the reference's ``prepare`` and ``prepare_wide``: the weight may be float32."""
    size = len(weight)
    channels = triton.next_power_of_2(size)
    warps = min(16, max(1, channels // 512))

    def norm(x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, size)
        rows = rows if rows.stride(1) == 1 else rows.contiguous()
        y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        if len(rows):
            _normalise[(len(rows),)](
                rows, rows.stride(0), rows, weight, y, epsilon, SIZE=size, CHANNELS=channels,
                ADDING=False, num_warps=warps, **early(x.device),
            )  # fmt: skip
        return y

    def add_norm(x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        y = torch.empty_like(residual)
        if len(x):
            _normalise[(len(x),)](
                x, x.stride(0), residual, weight, y, epsilon, SIZE=size, CHANNELS=channels,
                ADDING=True, num_warps=warps, **early(x.device),
            )  # fmt: skip
        return y

    return TritonNorm(norm, add_norm, weight, epsilon)
