"""The CPU's linear layers against the reference."""

import pytest
import torch

from worker.kernels.cpu import linear
from worker.kernels.reference import linear as reference

ROWS = (1, 2, 3, 7, 8, 32, 130)


def matrix(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * 0.05).to(dtype)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("form", ["pack_half", "pack_onednn"])
def test_packed_forms_in_float32(form, bias):
    pack = getattr(linear, form)
    if not linear._works(pack, torch.float32):
        pytest.skip("torch offers this operator on other processors only")
    weight = matrix(176, 96, dtype=torch.bfloat16).float()
    offset = matrix(176, seed=1) if bias else None
    packed, plain = pack(weight, offset), reference.pack(weight, offset)
    for rows in ROWS:
        x = matrix(rows, 96, seed=rows) * 20
        assert (packed(x) - plain(x)).abs().max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_packed_half_precision(dtype):
    if not linear._works(linear.pack_onednn, dtype):
        pytest.skip("this processor has no instructions for the dtype")
    weight = matrix(176, 96, dtype=dtype)
    packed, plain = linear.pack_onednn(weight, None), reference.pack(weight, None)
    for rows in ROWS:
        x = (matrix(rows, 96, seed=rows) * 20).to(dtype)
        assert (packed(x) - plain(x)).abs().max() < 0.05


def test_half_with_several_threads():
    """The other operator."""
    weight = matrix(64, 48, dtype=torch.bfloat16).float()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        if not linear._works(linear.pack_half, torch.float32):
            pytest.skip("torch offers this operator on other processors only")
        packed = linear.pack_half(weight, None)
        x = matrix(5, 48, seed=1)
        assert (packed(x) - x @ weight.T).abs().max() < 1e-5
    finally:
        torch.set_num_threads(threads)


def test_which_weights_fit_half():
    assert linear.fits_half(matrix(64, 64, dtype=torch.bfloat16).float())
    assert linear.fits_half(matrix(64, 64, dtype=torch.float16).float())
    assert linear.fits_half(torch.zeros(4, 4))
    assert not linear.fits_half(matrix(64, 64))
    assert not linear.fits_half(torch.full((4, 4), 1e6))
    assert not linear.fits_half(torch.full((4, 4), 3e-7))
    one_bad_row = matrix(5000, 8, dtype=torch.bfloat16).float()
    one_bad_row[4500, 3] = 0.1
    assert not linear.fits_half(one_bad_row)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [(32, 40), (600, 640)])
def test_whatever_is_chosen_is_right(dtype, size):
    pack = linear.choose_pack(dtype)
    weight, bias = matrix(*size, dtype=dtype), matrix(size[0], dtype=dtype, seed=1)
    x = matrix(9, size[1], dtype=dtype, seed=2)
    wanted = x.double() @ weight.double().T + bias.double()
    tolerance = 5e-6 if dtype == torch.float32 else 1e-2
    assert (pack(weight, bias)(x) - wanted).abs().max() < tolerance


def test_a_form_that_does_not_work_is_not_chosen(monkeypatch):
    def broken(*_):
        raise RuntimeError("this processor cannot")

    monkeypatch.setattr(linear, "pack_half", broken)
    monkeypatch.setattr(linear, "pack_onednn", lambda weight, bias: lambda x: x @ weight.T + 1)
    pack = linear.choose_pack(torch.float32)
    weight = matrix(600, 640)
    x = matrix(4, 640, seed=1)
    assert torch.equal(pack(weight, None)(x), reference.pack(weight, None)(x))
