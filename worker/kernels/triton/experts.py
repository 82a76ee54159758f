"""Triton kernel: a matrix of each expert of a mixture, all in one launch: a grouped product.

Rows are ordered by their experts (``routing``) and cut into ``tiles``. Experts' weights stay where
they were loaded.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from worker.kernels.triton.activation import Gate
from worker.kernels.triton.launch import follow
from worker.kernels.triton.routing import Routed
from worker.kernels.triton.tiles import (
    ALIGNED,
    Tile,
    end_with,
    find_tile,
    launch_of,
    places_of,
    rows_of,
)

_FEW = Tile(rows=16, outputs=64, inputs=128, warps=4, stages=5)
_SOME = Tile(rows=64, outputs=128, inputs=64, warps=4, stages=3)
_MANY = Tile(rows=128, outputs=128, inputs=64, warps=8, stages=3)
_WIDE_FEW = Tile(rows=16, outputs=64, inputs=64, warps=4, stages=3)
_WIDE_MANY = Tile(rows=64, outputs=64, inputs=32, warps=4, stages=3)
_TILES = {2: (_FEW, _SOME, _MANY), 4: (_WIDE_FEW, _WIDE_MANY)}
"""By the bytes of a number, smallest first."""


@triton.jit
def _multiply(
    x,
    x_row,
    order,
    starts,
    weights,
    places,
    biases,
    bias_places,
    output,
    count,
    outputs,
    inputs,
    CHOSEN: tl.constexpr,
    BIAS: tl.constexpr,
    GATE: tl.constexpr,
    EXPERTS: tl.constexpr,
    WHOLE: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    EARLY: tl.constexpr,
):
    """A tile of one expert's pairs, OUTPUTS outputs; weights [outputs, inputs] of each expert.

    With a GATE, x [T, inputs] are tokens, ups lie below the gates, and the output is in the order
    of experts; else x is in that order, and the output [T · CHOSEN, outputs] in that of tokens.
    ``weights`` is the first expert's, ``places`` [count] are those of all, as numbers behind it;
    the same of biases [outputs], if BIAS. WHOLE: inputs are a multiple of INPUTS.
    """
    follow(EARLY)
    expert, begin, end = find_tile(starts, count, EXPERTS, ROWS)
    if expert >= count:
        return
    m = begin + tl.arange(0, ROWS)
    n = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    k = tl.arange(0, INPUTS)
    here, inside = m < end, n < outputs
    source, target = rows_of(order, m, here, CHOSEN, GATE)
    where_x = x + source[:, None] * x_row + k[None, :]
    weight = weights + tl.multiple_of(tl.load(places + expert), ALIGNED)
    where = weight + n.to(tl.int64)[None, :] * inputs + k[:, None]
    to_ups = outputs.to(tl.int64) * inputs
    sums = tl.zeros((ROWS, OUTPUTS), tl.float32)
    ups = tl.zeros((ROWS, OUTPUTS), tl.float32)
    for start in range(0, inputs, INPUTS):
        held, wanted = here[:, None], inside[None, :]
        if not WHOLE:
            left = k < inputs - start
            held, wanted = held & left[None, :], wanted & left[:, None]
        some = tl.load(where_x + start, mask=held, other=0.0)
        numbers = tl.load(where + start, mask=wanted, other=0.0)
        sums = tl.dot(some, numbers, sums, input_precision="ieee")
        if GATE is not None:
            numbers = tl.load(where + to_ups + start, mask=wanted, other=0.0)
            ups = tl.dot(some, numbers, ups, input_precision="ieee")
    sums = end_with(sums, ups, biases, bias_places, expert, n, inside, outputs, BIAS, GATE)
    where = output + target[:, None] * outputs + n[None, :]
    tl.store(where, sums.to(output.dtype.element_ty), mask=here[:, None] & inside[None, :])


class Matrices:
    """One of each expert, [outputs, inputs], wherever they lie."""

    def __init__(self, weights: Sequence[torch.Tensor], biases: Sequence[torch.Tensor]) -> None:
        """``biases`` of all of them, or of none."""
        self._weights = list(weights)
        self._biases = list(biases)
        self._count = len(weights)
        self._outputs, self._inputs = weights[0].shape
        self._places = places_of(weights)
        self._bias_places = places_of(biases) if biases else self._places

    def multiply(self, x: torch.Tensor, routed: Routed, gate: Gate | None) -> torch.Tensor:
        """As ``tiles.ExpertMatrices.multiply``."""
        tiles = _TILES[x.dtype.itemsize]
        y, grid, tile, constants = launch_of(x, routed, gate, self._outputs, self._count, tiles)
        _multiply[grid](
            x, x.stride(0), routed.order, routed.starts, self._weights[0], self._places,
            self._biases[0] if self._biases else y, self._bias_places, y, self._count, y.shape[1],
            self._inputs,
            BIAS=bool(self._biases), WHOLE=self._inputs % tile.inputs == 0, INPUTS=tile.inputs,
            **constants,
        )  # fmt: skip
        return y
