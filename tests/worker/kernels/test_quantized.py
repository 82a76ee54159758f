"""Linear layers of codes, in C, against the reference; and what the one form of codes can do."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from tests.worker.kernels.coded import coded
from worker.kernels.cpu.linear import Kind
from worker.kernels.cpu.quantized import QuantizedLinear, fits, pack_codes
from worker.kernels.reference import linear as reference
from worker.kernels.reference.quantized import WHOLE_LEVELS, Coding, Quantized, joined
from worker.sharding import Cut

ROWS = (1, 2, 3, 7, 16, 17, 33, 70)
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}
SHAPES = [(64, 96, 32, True), (70, 128, 128, True), (96, 2560, 128, False), (33, 576, 576, True)]
"""Outputs, inputs, inputs of a group, and whether there are offsets."""


def rows(count, inputs, dtype, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, inputs, generator=generator).to(dtype)


def product(x, weight, bias=None):
    wanted = x.float() @ weight.dequantized(torch.float32).T
    return wanted if bias is None else wanted + bias.float()


@pytest.mark.parametrize("coding", list(Coding), ids=lambda coding: coding.name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_in_c(library, dtype, coding, shape):
    outputs, inputs, group, offsets = shape
    weight = coded(coding, outputs, inputs, group, offsets=offsets)
    bias = rows(1, outputs, dtype)[0] if offsets else None
    layer = pack_codes(library, dtype, weight, bias)
    assert isinstance(layer, QuantizedLinear)
    for count in ROWS:
        x = rows(count, inputs, dtype, seed=count)
        found, wanted = layer(x), product(x, weight, bias)
        assert found.dtype == dtype
        assert (found.float() - wanted).abs().max() < TOLERANCE[dtype] * wanted.abs().max()


@pytest.mark.parametrize("kind", Kind)
def test_no_rows(library, dtype, kind):
    """As the last layer has where a prompt goes on in the next step."""
    layer = pack_codes(library, dtype, coded(Coding.NIBBLE, 64, 96, 32, offsets=True), None, kind)
    assert isinstance(layer, QuantizedLinear)
    assert layer(rows(0, 96, dtype)).shape == (0, layer.width)


@pytest.mark.parametrize("coding", list(Coding), ids=lambda coding: coding.name)
def test_kinds(library, dtype, coding):
    weight = coded(coding, 128, 64, 32, offsets=True)
    for count in (1, 5, 40):
        x = rows(count, 64, dtype, seed=count)
        wanted = product(x, weight)
        wide = pack_codes(library, dtype, weight, None, Kind.WIDE)(x)
        assert wide.dtype == torch.float32
        assert (wide - wanted).abs().max() < TOLERANCE[dtype] * wanted.abs().max()
        gated = pack_codes(library, dtype, weight, None, Kind.GATED)(x)
        gate, up = wanted.chunk(2, dim=1)
        wanted = F.silu(gate) * up
        assert (gated - wanted).abs().max() < TOLERANCE[dtype] * wanted.abs().max()


def test_every_code_of_8_bits(library, dtype):
    """Each is exact: one output's weights are all of them."""
    for coding in (Coding.INTEGER, Coding.FLOAT8):
        codes = torch.arange(256).to(torch.uint8)
        if coding is Coding.FLOAT8:
            codes[127] = codes[255] = 0  # no numbers
        else:
            codes = codes.view(torch.int8)
        weight = Quantized(coding, codes[None], torch.ones(1, 1))
        layer = pack_codes(library, dtype, weight, None, Kind.WIDE)
        for count in (2, 256):
            x = torch.eye(256, dtype=dtype)
            found = torch.cat([layer(part) for part in x.split(count)])
            assert torch.equal(found[:, 0], weight.numbers()[0])


def test_inputs_in_another_order(library, dtype):
    weight = coded(Coding.NIBBLE, 64, 96, 32, offsets=True, order=True)
    x = rows(4, 96, dtype)
    wanted = product(x, weight)
    found = pack_codes(library, dtype, weight, None)(x)
    assert (found.float() - wanted).abs().max() < TOLERANCE[dtype] * wanted.abs().max()


@pytest.mark.parametrize(
    ("outputs", "inputs", "group", "kind"),
    [(64, 80, 16, Kind.NARROW), (64, 48, 48, Kind.WIDE), (48, 64, 64, Kind.GATED)],
)
def test_shapes_that_are_not_in_c(library, dtype, outputs, inputs, group, kind):
    weight = coded(Coding.NIBBLE, outputs, inputs, group)
    assert not fits(weight, kind)
    x = rows(3, inputs, dtype)
    wanted = product(x, weight)
    if kind is Kind.GATED:
        gate, up = wanted.chunk(2, dim=1)
        wanted = F.silu(gate) * up
    found = pack_codes(library, dtype, weight, None, kind)(x)
    assert found.dtype == (torch.float32 if kind is Kind.WIDE else dtype)
    assert (found.float() - wanted).abs().max() < TOLERANCE[dtype] * wanted.abs().max()


# --- the form -----------------------------------------------------------------------------------


def test_whole_levels():
    weight = Quantized(
        Coding.NIBBLE,
        torch.tensor([[0x10, 0xF8]], dtype=torch.uint8),
        torch.tensor([[2.0]]),
        torch.tensor([[1.0]]),
        torch.tensor(WHOLE_LEVELS),
    )
    assert weight.dequantized(torch.float32).tolist() == [[-15.0, -13.0, 1.0, 15.0]]


@pytest.mark.parametrize("coding", list(Coding), ids=lambda coding: coding.name)
def test_parts(coding):
    weight = coded(coding, 12, 96, 32, offsets=True)
    whole = weight.dequantized(torch.float32)
    below = weight.cut(Cut(0, ((2, 5), (8, 12)))).dequantized(torch.float32)
    assert torch.equal(below, torch.cat((whole[2:5], whole[8:12])))
    inside = weight.cut(Cut(1, ((48, 96),)))
    assert inside.group == 16
    assert torch.equal(inside.dequantized(torch.float32), whole[:, 48:])
    one = coded(coding, 12, 96, 96)
    part = one.cut(Cut(1, ((48, 96),)))
    assert part.group == 48
    assert torch.equal(part.dequantized(torch.float32), one.dequantized(torch.float32)[:, 48:])


def test_what_cannot_be_cut():
    with pytest.raises(ValueError, match="neighbours"):
        coded(Coding.NIBBLE, 4, 64, 32, order=True).cut(Cut(1, ((0, 32),)))
    with pytest.raises(ValueError, match="byte"):
        coded(Coding.NIBBLE, 4, 64, 32).cut(Cut(1, ((0, 31),)))


def test_joined():
    one, other = coded(Coding.INTEGER, 4, 64, 32), coded(Coding.INTEGER, 6, 64, 64, offsets=True)
    both = joined([one, other])
    assert both is not None
    assert both.group == 32
    wanted = torch.cat((one.dequantized(torch.float32), other.dequantized(torch.float32)))
    assert torch.equal(both.dequantized(torch.float32), wanted)
    assert joined([one, coded(Coding.FLOAT8, 4, 64, 32)]) is None
    levels = [coded(Coding.NIBBLE, 4, 64, 32, seed=seed) for seed in (0, 1)]
    assert joined(levels) is None
    orders = [coded(Coding.INTEGER, 4, 64, 32, order=True, seed=seed) for seed in (0, 1)]
    assert joined(orders) is None


def test_the_reference_computes_with_the_numbers_themselves():
    weight, x = coded(Coding.FLOAT8, 5, 6, 3, offsets=True), rows(2, 6, torch.float32)
    bias = torch.arange(5.0)
    assert torch.allclose(reference.pack(weight, bias)(x), product(x, weight, bias))
