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
