"""Linear layers of codes in Triton's interpreter, against the reference."""

from dataclasses import replace

import pytest
import torch

from tests.worker.kernels.coded import coded
from worker.kernels.reference import linear as reference
from worker.kernels.reference.quantized import E2M1_LEVELS, WHOLE_LEVELS, Coding
from worker.kernels.triton.quantized import pack_codes
from worker.quantization.at_load import NF4


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


@pytest.mark.parametrize("group", [8, 32, 64])
@pytest.mark.parametrize("levels", [WHOLE_LEVELS, E2M1_LEVELS, NF4], ids=["whole", "e2m1", "nf4"])
def test_levels(levels, group):
    """Groups shorter than what is computed at a time, too."""
    drawn = coded(Coding.NIBBLE, 32, 192, group)
    weight = replace(drawn, levels=torch.tensor(levels))
    assert set(weight.numbers().flatten().tolist()) == {float(torch.tensor(x)) for x in levels}
    x = torch.randn(2, 192, generator=torch.Generator().manual_seed(0))
    found, wanted = pack_codes(weight, None)(x), reference.pack(weight, None)(x)
    assert (found - wanted).abs().max() < 1e-3


def test_floats_are_exact_in_16_bits():
    """Scales that are powers of two change nothing of that."""
    drawn = coded(Coding.NIBBLE, 32, 64, 32)
    scales = torch.exp2(torch.randint(-9, 9, drawn.scales.shape).float())
    weight = replace(drawn, levels=torch.tensor(E2M1_LEVELS), scales=scales)
    one_by_one = torch.eye(64, dtype=torch.bfloat16)
    found = pack_codes(weight, None)(one_by_one)
    assert torch.equal(found.T.float(), weight.dequantized(torch.float32))
