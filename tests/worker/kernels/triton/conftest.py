"""Triton's interpreter as ``short_floats`` has it; and memory that is poisoned before its use."""

import pytest
import torch
from triton.runtime import interpreter

from tests.worker.kernels.triton import short_floats


@pytest.fixture(autouse=True)
def _short_floats(monkeypatch):
    builder = interpreter.InterpreterBuilder
    monkeypatch.setattr(builder, "create_dot", short_floats.multiplying(builder.create_dot))
    monkeypatch.setattr(interpreter, "_convert_float", short_floats.convert)


@pytest.fixture(autouse=True)
def _poisoned_outputs():
    """Torch fills what is not initialised with NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
