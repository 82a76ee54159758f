"""Norms, activation and rotation against their formulas."""

import pytest
import torch

from worker.kernels.cpu import norm as cpu_norm
from worker.kernels.reference import norm
from worker.kernels.reference.activation import ACTIVATIONS, GATED_ACTIVATIONS
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


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


def gelu_tanh(x):
    return x * 0.5 * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))


FORMULAS = {
    "silu": lambda x: x * torch.sigmoid(x),
    "swish": lambda x: x * torch.sigmoid(x),
    "relu": lambda x: x.clamp(min=0),
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_fast": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    torch.manual_seed(0)
    x = torch.randn(5, 24) * 3
    assert (ACTIVATIONS[name](x) - FORMULAS[name](x.double())).abs().max() < 2e-6


@pytest.mark.parametrize("name", [name for name in GATED_ACTIVATIONS if name in FORMULAS])
def test_gated_activations(name):
    torch.manual_seed(0)
    both = torch.randn(5, 24)
    gate, up = both.double().chunk(2, -1)
    got = GATED_ACTIVATIONS[name](both)
    assert (got - FORMULAS[name](gate) * up).abs().max() < 2e-6


def test_gates_that_are_clamped():
    torch.manual_seed(0)
    both = torch.randn(50, 24) * 6
    gate, up = both.double().chunk(2, -1)
    gate, up = gate.clamp(max=7), up.clamp(-7, 7)
    assert both.max() > 7 > -7 > both.min()
    wanted = gate * torch.sigmoid(1.702 * gate) * (up + 1)
    assert (GATED_ACTIVATIONS["clamped_silu"](both) - wanted).abs().max() < 2e-5


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_wide_norm_keeps_its_weight(dtype):
    torch.manual_seed(0)
    x = torch.randn(7, 96).to(dtype)
    weight = 1 + torch.randn(96) * 2.0**-9  # less than bfloat16 resolves beside 1
    got = norm.prepare_wide(weight, 1e-6).norm(x)
    assert got.dtype == dtype
    wanted = formula(x, weight, 1e-6).to(dtype)
    assert (got - wanted).abs().max() <= (2e-6 if dtype == torch.float32 else 0.0)


def test_layer_norm():
    torch.manual_seed(0)
    x, residual = torch.randn(2, 7, 96)
    weight, bias = torch.rand(2, 96)
    total = (residual + x).double()
    centred = total - total.mean(-1, keepdim=True)
    wanted = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias
    operations = norm.prepare_layer(weight, bias, 1e-5)
    assert (operations.add_norm(x, residual) - wanted).abs().max() < 2e-6
    assert (residual - total).abs().max() < 1e-6
    assert (operations.norm(residual) - wanted).abs().max() < 2e-6


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
