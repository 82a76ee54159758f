"""Triton kernel: the gated SiLU of feed-forward blocks, in one pass; and what others end with."""

from enum import IntEnum

import torch
import triton
import triton.language as tl

from worker.kernels.reference.activation import LIMIT, SLOPE
from worker.kernels.triton.launch import early, follow

_BLOCK = 1024
_SLOPE, _LIMIT = tl.constexpr(SLOPE), tl.constexpr(LIMIT)


class Gate(IntEnum):
    """What gates and ups become."""

    SILU = 0
    """As ``silu_and_multiply``."""
    CLAMPED = 1
    """As ``clamp_and_multiply``."""


SILU = tl.constexpr(int(Gate.SILU))
_CLAMPED = tl.constexpr(int(Gate.CLAMPED))


@triton.jit
def gate_and_multiply(gates, ups, GATE: tl.constexpr):
    """Of float32 numbers."""
    if GATE == _CLAMPED:
        gates = tl.minimum(gates, _LIMIT)
        ups = tl.maximum(tl.minimum(ups, _LIMIT), -_LIMIT)
        return gates / (1.0 + tl.exp(-(gates * _SLOPE))) * (ups + 1.0)
    return gates / (1.0 + tl.exp(-gates)) * ups


@triton.jit
def _silu_and_multiply(
    gate_and_up,
    row_stride,
    output,
    width,
    BLOCK: tl.constexpr,
    EARLY: tl.constexpr,
):
    """BLOCK channels of one row: [T, 2 · width], gate first, to [T, width]."""
    follow(EARLY)
    row = tl.program_id(0).to(tl.int64)
    channels = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = channels < width
    where = gate_and_up + row * row_stride + channels
    gate = tl.load(where, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(where + width, mask=inside, other=0.0).to(tl.float32)
    result = gate_and_multiply(gate, up, SILU)
    tl.store(output + row * width + channels, result.to(output.dtype.element_ty), mask=inside)


def silu_and_multiply(gate_and_up: torch.Tensor) -> torch.Tensor:
    """As the reference's: [T, 2 · width], gate first, channels side by side, to [T, width]."""
    rows, both = gate_and_up.shape
    width = both // 2
    y = gate_and_up.new_empty((rows, width))
    if rows:
        _silu_and_multiply[(rows, triton.cdiv(width, _BLOCK))](
            gate_and_up, gate_and_up.stride(0), y, width, BLOCK=_BLOCK, num_warps=4,
            **early(y.device),
        )  # fmt: skip
    return y
