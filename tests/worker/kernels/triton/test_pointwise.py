"""Norms, the gated SiLU and the inputs of a step, in Triton: against the reference's in float64."""

import pytest
import torch

from worker.kernels.reference import gather as reference_gather
from worker.kernels.reference import norm as reference_norm
from worker.kernels.reference.activation import silu_and_multiply as reference_silu
from worker.kernels.reference.gather import DecodeRows
from worker.kernels.triton.activation import silu_and_multiply
from worker.kernels.triton.gather import gather_inputs
from worker.kernels.triton.norm import prepare_norm

NEAR = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 4e-3}


def assert_near(got, wanted):
    assert got.shape == wanted.shape
    assert (got.double() - wanted).norm() / wanted.norm() < NEAR[got.dtype]


@pytest.mark.parametrize("dtype", list(NEAR))
@pytest.mark.parametrize("size", [16, 576, 1000])
@pytest.mark.parametrize("wide", [False, True])
def test_norm(dtype, size, wide):
    torch.manual_seed(0)
    x, residual = torch.randn(2, 3, size).to(dtype)
    weight = (torch.rand(size) + 0.5).to(torch.float32 if wide else dtype)
    operations = prepare_norm(weight, 1e-5)
    exact = reference_norm.prepare(weight.double(), 1e-5)
    before = x.clone()
    got = operations.norm(x)
    assert got.dtype == dtype
    assert_near(got, exact.norm(x.double()))
    total = residual + x
    assert_near(operations.add_norm(x, residual), exact.norm(total.double()))
    assert torch.equal(residual, total)
    assert torch.equal(x, before)


def test_norm_of_heads_within_rows():
    torch.manual_seed(0)
    rows = torch.randn(3, 10, 32)
    weight = torch.rand(32)
    got = prepare_norm(weight, 1e-5).norm(rows[:, 2:6])
    wanted = reference_norm.prepare(weight.double(), 1e-5).norm(rows[:, 2:6].double())
    assert_near(got, wanted)


def test_nothing_has_a_norm_and_an_activation():
    operations = prepare_norm(torch.ones(8), 1e-5)
    assert operations.norm(torch.empty(0, 8)).shape == (0, 8)
    assert operations.add_norm(torch.empty(0, 8), torch.empty(0, 8)).shape == (0, 8)
    assert silu_and_multiply(torch.empty(0, 8)).shape == (0, 4)


@pytest.mark.parametrize("dtype", list(NEAR))
@pytest.mark.parametrize("width", [1, 96, 1500])
def test_gated_silu(dtype, width):
    torch.manual_seed(0)
    both = (torch.randn(3, 2 * width) * 4).to(dtype)
    both[0, 0] = -80.0  # exp(80) is still a number
    assert_near(silu_and_multiply(both), reference_silu(both.double()))


@pytest.mark.parametrize("count", [0, 1, 130])
def test_inputs_of_a_step(count):
    generator = torch.Generator().manual_seed(0)
    sequences = torch.randint(9, (count,), generator=generator)
    offsets = torch.randint(3, (count,), generator=generator)
    drafts = torch.randint(1 << 40, (count,), generator=generator)
    last_tokens = torch.randint(1 << 40, (9,), generator=generator)
    lengths = torch.randint(1, 600, (9,), generator=generator)
    tables = torch.randint(1 << 31, (9, 40), generator=generator)
    rows = DecodeRows(sequences, offsets, drafts)
    got = gather_inputs(
        DecodeRows(sequences.int(), offsets.int(), drafts), last_tokens, lengths.int(), tables
    )
    twin = reference_gather.gather_inputs(rows, last_tokens, lengths, tables)
    for name in ("ids", "positions", "slots", "lengths"):
        assert torch.equal(getattr(got, name), getattr(twin, name))
        assert getattr(got, name).data_ptr() % 16 == 0
    for row, (sequence, offset) in enumerate(
        zip(sequences.tolist(), offsets.tolist(), strict=True)
    ):
        position = int(lengths[sequence]) - 1 + offset
        assert int(got.ids[row]) == int(drafts[row] if offset else last_tokens[sequence])
        assert int(got.positions[row]) == position
        assert int(got.slots[row]) == int(tables[sequence, position // 16]) * 16 + position % 16
