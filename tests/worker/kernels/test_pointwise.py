"""Norms, activation and rotation against their formulas."""

import pytest
import torch

from worker.kernels.cpu import norm as cpu_norm
from worker.kernels.reference import norm
from worker.kernels.reference.activation import silu_and_multiply
from worker.kernels.reference.rotary import rotate_

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def formula(x, weight, epsilon):
    x = x.double()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon) * weight.double()


@pytest.mark.parametrize("prepare", [norm.prepare, cpu_norm.prepare])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 300.0])
def test_rms_norm(prepare, dtype, scale):
    torch.manual_seed(0)
    x, residual = (torch.randn(2, 7, 96) * scale).to(dtype)
    weight = (torch.rand(96) + 0.5).to(dtype)
    operations = prepare(weight, 1e-6)
    tolerance = 2e-6 if dtype == torch.float32 else 3e-2
    before = x.clone()
    assert (operations.norm(x) - formula(x, weight, 1e-6)).abs().max() < tolerance
    assert torch.equal(x, before)
    total = residual + x
    got = operations.add_norm(x, residual)
    assert torch.equal(residual, total)
    assert torch.equal(x, before)
    assert (got - formula(total, weight, 1e-6)).abs().max() < tolerance


def test_a_row_of_zeros_has_a_norm():
    got = cpu_norm.prepare(torch.ones(8), 1e-6).norm(torch.zeros(2, 8))
    assert torch.equal(got, torch.zeros(2, 8))


def test_silu_and_multiply():
    torch.manual_seed(0)
    both = torch.randn(5, 24)
    gate, up = both.double().chunk(2, -1)
    got = silu_and_multiply(both)
    assert (got - gate * torch.sigmoid(gate) * up).abs().max() < 1e-6


def test_rotation_touches_only_its_heads():
    torch.manual_seed(0)
    rows = torch.randn(3, 5, 8)
    before = rows.clone()
    angles = torch.randn(3, 1, 4)
    cosines, sines = angles.cos().repeat(1, 1, 2), torch.cat((-angles.sin(), angles.sin()), -1)
    rotate_(rows[:, :4], cosines, sines)
    assert torch.equal(rows[:, 4], before[:, 4])
    low, high = before[:, :4].chunk(2, -1)
    turned = torch.complex(low, high) * torch.polar(torch.ones_like(angles), angles)
    assert (rows[:, :4] - torch.cat((turned.real, turned.imag), -1)).abs().max() < 1e-6
