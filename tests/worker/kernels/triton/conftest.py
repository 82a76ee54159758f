"""Triton's interpreter, made to multiply bfloat16.

It keeps bfloat16 as its 16 bits and multiplies these as whole numbers in ``tl.dot``. Products of
float32 are what a GPU computes from bfloat16: nothing is rounded before the sum.
"""

import pytest
import triton.language as tl
from triton.runtime.interpreter import InterpreterBuilder


@pytest.fixture(autouse=True)
def _bfloat16_products(monkeypatch):
    create_dot = InterpreterBuilder.create_dot

    def widened(builder, value):
        return builder.cast_impl(value, tl.float32) if value.dtype == tl.bfloat16 else value

    def patched(builder, left, right, *others):
        return create_dot(builder, widened(builder, left), widened(builder, right), *others)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", patched)
