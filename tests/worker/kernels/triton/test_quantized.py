"""Linear layers of codes in Triton's interpreter, against the reference."""

from dataclasses import replace

import pytest
import torch

from tests.worker.kernels.coded import coded
from worker.kernels.reference import linear as reference
from worker.kernels.reference.quantized import WHOLE_LEVELS, Coding
from worker.kernels.triton.quantized import pack_codes


@pytest.mark.parametrize("coding", list(Coding), ids=lambda coding: coding.name)
@pytest.mark.parametrize(
    ("outputs", "inputs", "group", "more"),
    [(70, 64, 32, True), (64, 96, 96, False), (8, 24, 8, True)],
)
def test_equals_the_reference(coding, outputs, inputs, group, more):
    weight = coded(coding, outputs, inputs, group, offsets=more, order=more)
    generator = torch.Generator().manual_seed(1)
    bias = torch.randn(outputs, generator=generator) if more else None
    found, wanted = pack_codes(weight, bias), reference.pack(weight, bias)
    for rows in (1, 20):
        x = torch.randn(rows, inputs, generator=generator)
        assert (found(x) - wanted(x)).abs().max() < 1e-4
    assert found(x[:0]).shape == (0, outputs)


def test_whole_levels():
    drawn = coded(Coding.NIBBLE, 32, 64, 32)
    weight, x = replace(drawn, levels=torch.tensor(WHOLE_LEVELS)), torch.ones(2, 64)
    found, wanted = pack_codes(weight, None)(x), reference.pack(weight, None)(x)
    assert (found - wanted).abs().max() < 1e-3
