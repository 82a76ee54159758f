"""Low-rank pairs of several adapters in Triton's interpreter, against the reference."""

import itertools

import numpy as np
import pytest
import torch

from worker.kernels.low_rank import LowRank
from worker.kernels.reference.low_rank import ReferenceLowRank
from worker.kernels.triton.low_rank import TritonLowRank

CPU = torch.device("cpu")
INPUTS, OUTPUTS = 80, 70


def planned(kernel, adapters, count):
    return kernel.plan(np.array(adapters), CPU)


def laid_out(kernel, adapters, count):
    """With padding: of ``count`` adapters."""
    numbers = kernel.lay_out(np.array(adapters), kernel.room(len(adapters), count))
    return kernel.laid_out(torch.from_numpy(numbers), len(adapters))


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
@pytest.mark.parametrize("plan", [planned, laid_out])
def test_equals_the_reference(adapters, plan):
    """Ranks differ, one is more than are computed at a time; adapter 2 leaves the layer alone."""
    generator = torch.Generator().manual_seed(0)
    pairs = [pair(4, generator), pair(40, generator), None, pair(16, generator)]
    x = torch.randn(len(adapters), INPUTS, generator=generator)
    base = torch.randn(len(adapters), OUTPUTS, generator=generator)
    found, wanted, exact = base.clone(), base.clone(), base.clone()
    ways = ((TritonLowRank(), plan, found), (ReferenceLowRank(), plan, wanted))
    for kernel, how, y in (*ways, (ReferenceLowRank(), planned, exact)):
        kernel.pack(pairs)(y, x, how(kernel, adapters, len(pairs)))
    assert (found - exact).abs().max() < 1e-3
    assert (wanted - exact).abs().max() < 1e-3
    alone = torch.tensor([number in (-1, 2) for number in adapters])
    for y in (found, wanted):
        assert torch.equal(y[alone], base[alone])
        assert bool(((y != base).any(dim=1) == ~alone).all())


@pytest.mark.parametrize("kernel", [TritonLowRank(), ReferenceLowRank()], ids=["triton", "torch"])
def test_zeros_are_a_plan_of_nobody(kernel):
    generator = torch.Generator().manual_seed(0)
    x, base = torch.randn(3, INPUTS, generator=generator), torch.randn(3, OUTPUTS)
    for count in (1, 30):
        assert not kernel.lay_out(np.full(3, -1), kernel.room(3, count)).any()
        y = base.clone()
        plan = kernel.laid_out(torch.zeros(kernel.room(3, count), dtype=torch.int64), 3)
        kernel.pack([pair(4, generator)] * count)(y, x, plan)
        assert torch.equal(y, base)


@pytest.mark.parametrize(("count", "most"), [(1, 70), (2, 70), (3, 35)])
def test_there_is_room_for_everybody_and_none_to_spare(count, most):
    kernel, before = TritonLowRank(), 0
    for rows in range(most):
        room, needed = kernel.room(rows, count), 0
        shares = (share for share in itertools.product(range(rows + 1), repeat=count - 1))
        for first in (share for share in shares if sum(share) <= rows):
            held = np.repeat(np.arange(count), [*first, rows - sum(first)])
            tiles = kernel.laid_out(torch.from_numpy(kernel.lay_out(held, room)), rows).tiles
            assert int(tiles[:, 2].sum()) == rows
            needed = max(needed, int((tiles[:, 2] > 0).sum()))
            assert len(tiles) >= needed
        assert len(tiles) == needed
        assert room >= before
        before = room


@pytest.mark.parametrize("rows", [1, 2, 7, 16])
def test_what_is_launched_is_the_same_whoever_has_which(rows):
    kernel = TritonLowRank()
    shapes = set()
    for adapters in ([-1] * rows, [2] + [-1] * (rows - 1), [n % 3 for n in range(rows)]):
        plan = laid_out(kernel, adapters, 3)
        shapes.add((plan.order.shape, plan.tiles.shape))
        assert (plan.tiles.data_ptr() - plan.order.data_ptr()) % 16 == 0
    assert len(shapes) == 1


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
