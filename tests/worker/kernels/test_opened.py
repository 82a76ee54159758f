"""Gated layers in C without their gates: the sums that adapters add to, and what follows them."""

import pytest
import torch

from worker.kernels.cpu.linear import Kind, pack_native
from worker.kernels.cpu.quantized import pack_codes
from worker.kernels.reference.linear import opened
from worker.quantization.at_load import to_float8, to_integers, to_nf4

OUTPUTS, INPUTS, ROWS = 96, 64, 21


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).bfloat16()


@pytest.mark.parametrize("encode", [None, to_integers, to_float8, to_nf4])
@pytest.mark.parametrize("bias", [None, drawn(OUTPUTS)], ids=["plain", "biased"])
def test_a_gated_layer_is_its_sums_and_its_activation(bfloat16, encode, bias):
    weight, x = drawn(OUTPUTS, INPUTS) * INPUTS**-0.5, drawn(ROWS, INPUTS, 1)[:, :, 0]
    if encode is None:
        layer = pack_native(bfloat16, torch.bfloat16, weight, bias, Kind.GATED)
        exact = weight.float()
    else:
        codes = encode(weight)
        layer = pack_codes(bfloat16, torch.bfloat16, codes, bias, Kind.GATED)
        exact = codes.dequantized(torch.float32)
    parts = opened(layer)
    assert parts is not None
    sums = parts.linear(x)
    assert (sums.dtype, sums.shape) == (torch.float32, (ROWS, OUTPUTS))
    wanted = x.float() @ exact.T + (0.0 if bias is None else bias.float())
    assert (sums - wanted).abs().max() < 0.02 * wanted.abs().max()
    result = parts(x)
    assert result.dtype == torch.bfloat16
    assert (result.float() - layer(x).float()).abs().max() < 0.02 * result.abs().max()


def test_what_is_not_gated_has_nothing_to_open(bfloat16):
    weight = drawn(OUTPUTS, INPUTS)
    assert opened(pack_native(bfloat16, torch.bfloat16, weight, None)) is None
    assert opened(pack_codes(bfloat16, torch.bfloat16, to_integers(weight), None)) is None
