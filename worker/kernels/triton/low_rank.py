"""Triton kernels: low-rank pairs of many adapters in two launches, whatever the step mixes.

Rows are ordered by their adapters and cut into tiles, each of one adapter: the first kernel makes
of each tile its few numbers per row (the rank), the second adds what they make to the output. The
same division of work as Punica's (Chen et al. 2023). Sums are in float32.

A plan of fixed shape has as many tiles as its rows may ever need: those beyond are of no row, and
their programs end at once.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl

from worker.kernels.low_rank import AddLowRank, LowRank
from worker.transfers import Integers, send

_ROWS = 16
"""Of a tile: what the matrix instructions take at least."""
_RANKS = 32
"""At a time."""
_INPUTS = {2: 256, 4: 64}
"""By the bytes of a number. PERF: a tile of few ranks is one program, which goes through all inputs
alone: 16 steps for 4,096 of them, not 64, each as long as memory takes to answer."""
_STAGES = {2: 4, 4: 3}
"""The same."""
_OUTPUTS = 64
_TILE = 3
"""Numbers that say which rows are in one."""
_EVEN = 2
"""Numbers of 8 bytes: tiles begin at a multiple of 16 bytes, however many rows are before them.
Triton compiles kernels anew for arguments that begin elsewhere."""


class Plan(NamedTuple):
    """A step's rows that have adapters, in tiles."""

    order: torch.Tensor  # [T] int64, rows by their adapters; those that have none are left out
    tiles: torch.Tensor  # [tiles, 3] int64: adapter, first of ``order``, how many


@triton.jit
def _shrink(
    x,
    x_row,
    order,
    tiles,
    downs,
    ranks,
    middle,
    inputs,
    RANK: tl.constexpr,
    ROWS: tl.constexpr,
    RANKS: tl.constexpr,
    INPUTS: tl.constexpr,
):
    """A tile of x [T, inputs] to RANKS columns of middle [T, RANK] float32."""
    tile = tiles + tl.program_id(0) * 3
    adapter, first, count = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2)
    begin = tl.program_id(1) * RANKS
    if begin < tl.load(ranks + adapter, mask=count > 0, other=0):
        m, r = tl.arange(0, ROWS), begin + tl.arange(0, RANKS)
        here = m < count
        row = tl.load(order + first + m, mask=here, other=0)
        where_x = x + row[:, None] * x_row
        where_down = downs + (adapter * RANK + r)[:, None] * inputs
        sums = tl.zeros((ROWS, RANKS), tl.float32)
        for k in range(0, inputs, INPUTS):
            column = k + tl.arange(0, INPUTS)[None, :]
            inside = column < inputs
            some = tl.load(where_x + column, mask=here[:, None] & inside, other=0.0)
            down = tl.load(where_down + column, mask=inside, other=0.0)
            sums += tl.dot(some, tl.trans(down), input_precision="ieee")
        where = middle + (first + m)[:, None] * RANK + r[None, :]
        tl.store(where, sums, mask=here[:, None])


@triton.jit
def _expand(
    middle,
    order,
    tiles,
    ups,
    ranks,
    y,
    outputs,
    RANK: tl.constexpr,
    ROWS: tl.constexpr,
    RANKS: tl.constexpr,
    OUTPUTS: tl.constexpr,
):
    """Adds to OUTPUTS columns of a tile's rows of y [T, outputs]."""
    tile = tiles + tl.program_id(0) * 3
    adapter, first, count = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2)
    m, n = tl.arange(0, ROWS), tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    here = (m < count)[:, None] & (n < outputs)[None, :]
    where_middle = middle + (first + m)[:, None] * RANK
    where_up = ups + (adapter * outputs + n)[:, None] * RANK
    sums = tl.zeros((ROWS, OUTPUTS), tl.float32)
    rank = tl.load(ranks + adapter, mask=count > 0, other=0)
    for k in range(0, rank, RANKS):
        r = k + tl.arange(0, RANKS)[None, :]
        some = tl.load(where_middle + r, mask=(m < count)[:, None], other=0.0)
        up = tl.load(where_up + r, mask=(n < outputs)[:, None], other=0.0)
        sums += tl.dot(some.to(up.dtype), tl.trans(up), input_precision="ieee")
    if rank > 0:
        row = tl.load(order + first + m, mask=m < count, other=0)
        where = y + row[:, None] * outputs + n[None, :]
        old = tl.load(where, mask=here, other=0.0).to(tl.float32)
        tl.store(where, (old + sums).to(y.dtype.element_ty), mask=here)


def _packed(adapters: Integers, room: int | None = None) -> Integers:
    """``Plan.order``, then ``Plan.tiles``; ``room``: so many numbers, the last of them zeros."""
    order = np.argsort(adapters, kind="stable")
    order = order[adapters[order] >= 0]
    numbers, starts, counts = np.unique(adapters[order], return_index=True, return_counts=True)
    tiles = [
        (number, start + first, min(_ROWS, count - first))
        for number, start, count in zip(numbers, starts, counts, strict=True)
        for first in range(0, count, _ROWS)
    ]
    begin = _even(len(adapters))
    end = begin + len(tiles) * _TILE
    packed = np.zeros(end if room is None else room, dtype=np.int64)
    packed[: len(order)] = order
    packed[begin:end] = np.array(tiles, dtype=np.int64).ravel()
    return packed


def _even(count: int) -> int:
    return -(-count // _EVEN) * _EVEN


class TritonLowRank:
    """As ``LowRankKernel``."""

    def plan(self, adapters: Integers, device: torch.device) -> Plan:
        """As ``LowRankKernel.plan``; one transfer."""
        return self.laid_out(send(torch.from_numpy(_packed(adapters)), device), len(adapters))

    def room(self, rows: int, adapters: int) -> int:
        """As ``LowRankKernel.room``: most tiles are needed where all but one adapter have a row."""
        most = min(rows, adapters)
        return _even(rows) + (most + (rows - most) // _ROWS) * _TILE

    def lay_out(self, adapters: Integers, room: int) -> Integers:
        """As ``LowRankKernel.lay_out``."""
        return _packed(adapters, room)

    def laid_out(self, numbers: torch.Tensor, rows: int) -> Plan:
        """As ``LowRankKernel.laid_out``."""
        return Plan(numbers[:rows], numbers[_even(rows) :].view(-1, _TILE))

    def pack(self, pairs: Sequence[LowRank | None]) -> AddLowRank:
        """As ``LowRankKernel.pack``: all pairs in one tensor each, padded to the largest rank."""
        known = [pair for pair in pairs if pair is not None]
        (_, inputs), outputs = known[0].down.shape, len(known[0].up)
        rank = max(math.ceil(len(pair.down) / _RANKS) for pair in known) * _RANKS
        downs = known[0].down.new_zeros((len(pairs), rank, inputs))
        ups = known[0].up.new_zeros((len(pairs), outputs, rank))
        for number, pair in enumerate(pairs):
            if pair is not None:
                downs[number, : len(pair.down)] = pair.down
                ups[number, :, : len(pair.down)] = pair.up
        counts = [0 if pair is None else len(pair.down) for pair in pairs]
        ranks = torch.tensor(counts, dtype=torch.int32, device=downs.device)

        def add(y: torch.Tensor, x: torch.Tensor, plan: Plan) -> None:
            order, tiles = plan
            x = x if x.stride(1) == 1 else x.contiguous()
            middle = torch.empty((len(order), rank), dtype=torch.float32, device=x.device)
            size = x.dtype.itemsize
            _shrink[(len(tiles), rank // _RANKS)](
                x, x.stride(0), order, tiles, downs, ranks, middle, inputs,
                RANK=rank, ROWS=_ROWS, RANKS=_RANKS, INPUTS=_INPUTS[size], num_warps=4,
                num_stages=_STAGES[size],
            )  # fmt: skip
            _expand[(len(tiles), triton.cdiv(outputs, _OUTPUTS))](
                middle, order, tiles, ups, ranks, y, outputs,
                RANK=rank, ROWS=_ROWS, RANKS=_RANKS, OUTPUTS=_OUTPUTS, num_warps=4,
            )  # fmt: skip

        return add
