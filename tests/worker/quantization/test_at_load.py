"""Weights that become codes as they are loaded."""

import warnings

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.worker.paged import Paged
from tests.worker.quantization.writers import NF4 as PUBLISHED
from tests.worker.tiny import write_tiny_llama
from worker.layers.linear import matrices
from worker.loading import load_model
from worker.quantization import at_load
from worker.quantization.at_load import BY_NAME, FP4, NF4, to_fp4, to_nf4

CPU = torch.device("cpu")
ERRORS = {"eetq": 0.008, "bitsandbytes": 0.008, "fp8": 0.03, "bitsandbytes-nf4": 0.1,
          "bitsandbytes-fp4": 0.14}  # fmt: skip
"""Of a matrix of normal numbers, relative to their norm."""


def matrix(outputs=40, inputs=128):
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", BY_NAME)
def test_the_error_is_what_so_few_bits_make(name):
    weight = matrix()
    coded = BY_NAME[name].encode(weight)
    error = (coded.dequantized(torch.float32) - weight).norm() / weight.norm()
    assert ERRORS[name] / 2 < error < ERRORS[name]
    assert coded.nbytes * 8 < BY_NAME[name].bits * weight.numel() * 1.04


@pytest.mark.parametrize("name", BY_NAME)
def test_a_row_of_zeros(name):
    weight = matrix()
    weight[3] = 0
    assert not BY_NAME[name].encode(weight).dequantized(torch.float32)[3].any()


@pytest.mark.parametrize("name", BY_NAME)
def test_a_weight_that_is_turned(name):
    """Its codes are the same, and nobody is warned of how it lies."""
    weight = matrix()
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = BY_NAME[name].encode(weight.T.contiguous().T)
    finally:
        torch.set_warn_always(False)
    wanted = BY_NAME[name].encode(weight)
    assert torch.equal(found.dequantized(torch.float32), wanted.dequantized(torch.float32))


class Largest(TorchDispatchMode):
    """Of all tensors that are made meanwhile."""

    nbytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for part in made if isinstance(made, list | tuple) else [made]:
            if isinstance(part, torch.Tensor):
                self.nbytes = max(self.nbytes, part.nbytes)
        return made


@pytest.mark.parametrize("name", BY_NAME)
def test_a_large_weight_takes_little_beside_its_codes(name, monkeypatch):
    weight = matrix(outputs=67)
    whole = BY_NAME[name].encode(weight)
    monkeypatch.setattr(at_load, "_TOGETHER", 8 * weight.shape[1])
    with Largest() as largest:
        coded = BY_NAME[name].encode(weight)
    assert torch.equal(coded.dequantized(torch.float32), whole.dequantized(torch.float32))
    assert largest.nbytes <= weight.numel()


def test_levels():
    assert torch.allclose(torch.tensor(NF4), torch.tensor(PUBLISHED), atol=1e-4)
    assert sorted(FP4)[-1] == 1.0
    for levels, encode in ((NF4, to_nf4), (FP4, to_fp4)):
        weight = torch.tensor(levels).repeat(4)[None] * 3
        assert torch.equal(encode(weight).dequantized(torch.float32), weight)


def test_inputs_that_make_no_groups_stay():
    weight = matrix(inputs=80)
    assert to_nf4(weight) is weight
    assert to_nf4(matrix(inputs=96)).group == 32


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("tied", [False, True])
def test_a_model(tmp_path, name, tied):
    write_tiny_llama(tmp_path, tie_word_embeddings=tied)
    model = load_model(str(tmp_path), device=CPU, dtype=torch.float32, quantize=name)
    plain = load_model(str(tmp_path), device=CPU, dtype=torch.float32)
    kinds = [matrix.is_coded for matrix in matrices(model)]
    assert kinds == [BY_NAME[name].output_layer] + [True] * 8
    for one, other in zip(matrices(model), matrices(plain), strict=True):
        x = torch.randn(3, one.inputs, generator=torch.Generator().manual_seed(1))
        wanted = other.operation(x)
        assert (one.operation(x) - wanted).norm() < 3 * ERRORS[name] * wanted.norm()
    assert len(Paged(model).generate(list(b"once"), 5)) == 5
