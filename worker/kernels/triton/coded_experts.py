"""Triton kernel: the same as ``experts`` of weights that stay codes of 8 or 4 bits."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from worker.kernels.reference.quantized import Coding, Quantized, alike
from worker.kernels.triton.activation import Gate
from worker.kernels.triton.launch import follow
from worker.kernels.triton.quantized import (
    LEAST_INPUTS,
    Levels,
    even_inputs,
    kind_of,
    scaled_products,
)
from worker.kernels.triton.routing import Routed
from worker.kernels.triton.tiles import (
    ALIGNED,
    ExpertMatrices,
    Tile,
    end_with,
    find_tile,
    launch_of,
    places_of,
    rows_of,
)

_NIBBLE = tl.constexpr(int(Coding.NIBBLE))
_FEW = Tile(rows=16, outputs=64, inputs=128, warps=4, stages=5)
_MANY = Tile(rows=64, outputs=128, inputs=64, warps=8, stages=3)
_WIDE = Tile(rows=16, outputs=32, inputs=32, warps=4, stages=3)
_TILES = {2: (_FEW, _MANY), 4: (_WIDE,)}
"""By the bytes of a number, smallest first."""


@triton.jit
def _multiply_coded(
    x,
    x_row,
    order,
    starts,
    codes,
    codes_row,
    scales,
    offsets,
    levels,
    places,
    biases,
    bias_places,
    output,
    count,
    outputs,
    inputs,
    groups,
    GROUP: tl.constexpr,
    CODING: tl.constexpr,
    LEVELS: tl.constexpr,
    OFFSETS: tl.constexpr,
    CHOSEN: tl.constexpr,
    BIAS: tl.constexpr,
    GATE: tl.constexpr,
    EXPERTS: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    EARLY: tl.constexpr,
):
    """As ``experts._multiply``; codes [outputs, inputs], scales and offsets [outputs, groups].

    ``codes``, ``scales``, ``offsets`` are the first expert's, ``places`` [3, count] those of all.
    Inputs are a multiple of INPUTS.
    """
    follow(EARLY)
    expert, begin, end = find_tile(starts, count, EXPERTS, ROWS)
    if expert >= count:
        return
    m = begin + tl.arange(0, ROWS)
    n = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    here, inside = m < end, n < outputs
    source, target = rows_of(order, m, here, CHOSEN, GATE)
    where_x = x + source[:, None] * x_row + tl.arange(0, INPUTS)[None, :]
    wide = n.to(tl.int64)
    own_codes = codes + tl.multiple_of(tl.load(places + expert), ALIGNED)
    own_scales = scales + tl.load(places + count + expert)
    own_offsets = offsets + tl.load(places + 2 * count + expert)
    where_codes = own_codes + wide * codes_row
    where_scales = wide * groups
    to_ups, to_scales_of_ups = outputs.to(tl.int64) * codes_row, outputs.to(tl.int64) * groups
    sums = tl.zeros((ROWS, OUTPUTS), tl.float32)
    ups = tl.zeros((ROWS, OUTPUTS), tl.float32)
    for k in range(0, inputs, INPUTS):
        some = tl.load(where_x + k, mask=here[:, None], other=0.0)
        first = where_codes + (k // 2 if CODING == _NIBBLE else k)
        group = where_scales + k // GROUP
        sums += scaled_products(
            some, first, levels, own_scales, own_offsets, group, inside,
            GROUP, CODING, LEVELS, OFFSETS, INPUTS,
        )  # fmt: skip
        if GATE is not None:
            ups += scaled_products(
                some, first + to_ups, levels, own_scales, own_offsets, group + to_scales_of_ups,
                inside, GROUP, CODING, LEVELS, OFFSETS, INPUTS,
            )  # fmt: skip
    sums = end_with(sums, ups, biases, bias_places, expert, n, inside, outputs, BIAS, GATE)
    where = output + target[:, None] * outputs + n[None, :]
    tl.store(where, sums.to(output.dtype.element_ty), mask=here[:, None] & inside[None, :])


class CodedMatrices:
    """One of each expert, wherever their codes, scales and offsets lie."""

    def __init__(
        self,
        weights: Sequence[Quantized],
        biases: Sequence[torch.Tensor],
        *,
        even: int,
        kind: Levels,
    ) -> None:
        """``biases`` as ``Matrices``; ``even`` and ``kind`` as ``even_inputs`` has them."""
        self._weights = list(weights)
        self._biases = list(biases)
        self._even = even
        self._offsets = [weight.offsets for weight in weights if weight.offsets is not None]
        scales = [weight.scales for weight in weights]
        places = [[weight.codes for weight in weights], scales, self._offsets or scales]
        self._places = torch.stack([places_of(tensors) for tensors in places])
        self._bias_places = places_of(biases) if biases else self._places
        self._kind = kind

    def multiply(self, x: torch.Tensor, routed: Routed, gate: Gate | None) -> torch.Tensor:
        """As ``ExpertMatrices.multiply``."""
        first, count = self._weights[0], len(self._weights)
        outputs, inputs = first.shape
        tiles = _TILES[x.dtype.itemsize]
        y, grid, tile, constants = launch_of(x, routed, gate, outputs, count, tiles)
        unused = first.scales
        _multiply_coded[grid](
            x, x.stride(0), routed.order, routed.starts, first.codes, first.codes.stride(0),
            first.scales, self._offsets[0] if self._offsets else unused,
            unused if first.levels is None else first.levels, self._places,
            self._biases[0] if self._biases else y, self._bias_places, y, count, y.shape[1],
            inputs, first.scales.shape[1],
            GROUP=first.group, CODING=int(first.coding), LEVELS=int(self._kind),
            OFFSETS=bool(self._offsets), BIAS=bool(self._biases),
            INPUTS=min(self._even, tile.inputs), **constants,
        )  # fmt: skip
        return y


def coded_matrices(
    weights: Sequence[Quantized], biases: Sequence[torch.Tensor]
) -> ExpertMatrices | None:
    """None where they are not of a kind, or of one that the kernel does not take."""
    first = weights[0]
    kind = kind_of(first.levels)
    even = even_inputs(first, kind)
    if even < LEAST_INPUTS or first.order is not None:
        return None
    if not all(_can_be_one(first, weight) for weight in weights[1:]):
        return None
    return CodedMatrices(weights, biases, even=even, kind=kind)


def _can_be_one(one: Quantized, other: Quantized) -> bool:
    offset = (one.offsets is None) == (other.offsets is None)
    return offset and one.scales.shape == other.scales.shape and alike(one, other)
