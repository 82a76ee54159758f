"""Low-rank pairs of several adapters in Triton's interpreter, against the reference."""

import numpy as np
import pytest
import torch

from worker.kernels.low_rank import LowRank
from worker.kernels.reference.low_rank import ReferenceLowRank
from worker.kernels.triton.low_rank import TritonLowRank

CPU = torch.device("cpu")
INPUTS, OUTPUTS = 80, 70


def pair(rank, generator):
    down = torch.randn(rank, INPUTS, generator=generator)
    return LowRank(down, torch.randn(OUTPUTS, rank, generator=generator))


@pytest.mark.parametrize(
    "adapters",
    [
        [0],
        [-1, 3, -1],
        [2, 2, 2],
        [*[1] * 20, *[-1] * 3, *[0] * 17, 3, 1, 2, -1, *[3] * 33],
        [0, 1, 2, 3] * 9,
    ],
    ids=["one", "alone", "untouched", "many", "in turn"],
)
def test_equals_the_reference(adapters):
    """Ranks differ, one is more than are computed at a time; adapter 2 leaves the layer alone."""
    generator = torch.Generator().manual_seed(0)
    pairs = [pair(4, generator), pair(40, generator), None, pair(16, generator)]
    x = torch.randn(len(adapters), INPUTS, generator=generator)
    base = torch.randn(len(adapters), OUTPUTS, generator=generator)
    found, wanted = base.clone(), base.clone()
    for kernel, y in ((TritonLowRank(), found), (ReferenceLowRank(), wanted)):
        plan = kernel.plan(np.array(adapters), CPU)
        kernel.pack(pairs)(y, x, plan)
    assert (found - wanted).abs().max() < 1e-3
    alone = torch.tensor([number in (-1, 2) for number in adapters])
    assert torch.equal(found[alone], base[alone])
    assert bool(((found != base).any(dim=1) == ~alone).all())


def test_rows_of_a_wider_tensor():
    generator = torch.Generator().manual_seed(0)
    own = pair(8, generator)
    wide = torch.randn(5, 2 * INPUTS, generator=generator)
    kernel = TritonLowRank()
    y = torch.zeros(5, OUTPUTS)
    kernel.pack([own])(y, wide[:, INPUTS:], kernel.plan(np.zeros(5, dtype=np.int64), CPU))
    wanted = wide[:, INPUTS:] @ own.down.T @ own.up.T
    assert (y - wanted).abs().max() < 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_more_inputs_than_are_read_at_a_time_in_16_bits(dtype):
    generator = torch.Generator().manual_seed(0)
    inputs, outputs = 600, 24
    down = (torch.randn(40, inputs, generator=generator) * inputs**-0.5).to(dtype)
    up = (torch.randn(outputs, 40, generator=generator) * 40**-0.5).to(dtype)
    x = torch.randn(3, inputs, generator=generator).to(dtype)
    y, kernel = torch.zeros(3, outputs, dtype=dtype), TritonLowRank()
    kernel.pack([LowRank(down, up)])(y, x, kernel.plan(np.array([0, -1, 0]), CPU))
    wanted = x.double() @ down.double().T @ up.double().T
    wanted[1] = 0.0
    assert (y.double() - wanted).norm() / wanted.norm() < 1e-2
