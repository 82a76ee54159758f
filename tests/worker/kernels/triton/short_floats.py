"""Triton's interpreter, put right for short floats.

It keeps bfloat16 as its 16 bits and multiplies these as whole numbers in ``tl.dot``; it rounds to
short floats towards zero, or loses the carry into the exponent. Here it multiplies float32, which
is what a GPU sums up from bfloat16, and torch rounds.
"""

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

_TORCH = {
    tl.float32: torch.float32,
    tl.float16: torch.float16,
    tl.bfloat16: torch.bfloat16,
    tl.float8e4nv: torch.float8_e4m3fn,
    tl.float8e5: torch.float8_e5m2,
}


def convert(values, kind, wanted, rounding_mode):
    """As ``interpreter._convert_float``: bits of one type in an array to those of another."""
    bits = np.frombuffer(values.tobytes(), dtype=f"uint{kind.primitive_bitwidth}").copy()
    rounded = torch.from_numpy(bits).view(_TORCH[kind]).to(_TORCH[wanted])
    whole = getattr(torch, f"uint{wanted.primitive_bitwidth}")
    return rounded.view(whole).numpy().reshape(values.shape)


def multiplying(create_dot):
    """The interpreter's method of this name, which multiplies bfloat16 too."""

    def multiply(builder, left, right, *others):
        return create_dot(builder, _widened(left), _widened(right), *others)

    return multiply


def _widened(operand):
    if operand.dtype.scalar != tl.bfloat16:
        return operand
    wide = (operand.data.astype(np.uint32) << 16).view(np.float32)
    return interpreter.TensorHandle(wide, tl.float32)
