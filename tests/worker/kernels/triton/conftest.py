"""Triton's interpreter, put right for short floats; and memory that is poisoned before its use.

The interpreter keeps bfloat16 as its 16 bits and multiplies these as whole numbers in ``tl.dot``;
and where rounding to a short float carries into the exponent, it loses the carry. Here it
multiplies float32, which is what a GPU sums up from bfloat16, and torch rounds.
"""

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime import interpreter

TORCH = {
    tl.float32: torch.float32,
    tl.float16: torch.float16,
    tl.bfloat16: torch.bfloat16,
    tl.float8e4nv: torch.float8_e4m3fn,
    tl.float8e5: torch.float8_e5m2,
}


def convert(values, kind, wanted, rounding_mode):
    """As ``interpreter._convert_float``: bits of one type in an array to those of another."""
    bits = np.frombuffer(values.tobytes(), dtype=f"uint{kind.primitive_bitwidth}").copy()
    rounded = torch.from_numpy(bits).view(TORCH[kind]).to(TORCH[wanted])
    whole = getattr(torch, f"uint{wanted.primitive_bitwidth}")
    return rounded.view(whole).numpy().reshape(values.shape)


@pytest.fixture(autouse=True)
def _short_floats(monkeypatch):
    create_dot = interpreter.InterpreterBuilder.create_dot

    def widened(builder, value):
        return builder.cast_impl(value, tl.float32) if value.dtype == tl.bfloat16 else value

    def patched(builder, left, right, *others):
        return create_dot(builder, widened(builder, left), widened(builder, right), *others)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", patched)
    monkeypatch.setattr(interpreter, "_convert_float", convert)


@pytest.fixture(autouse=True)
def _poisoned_outputs():
    """Torch fills what is not initialised with NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
