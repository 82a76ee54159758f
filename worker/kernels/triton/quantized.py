"""Triton kernel: a linear layer whose weights stay codes of 8 or 4 bits.

Codes become numbers in registers, exact in bfloat16 where they are integers or floats; products are
summed in float32 and scaled group by group. A step that decodes reads half or a quarter of what it
would read of weights in 16 bits; what it costs beside cuBLAS on long prompts has not been measured.
"""

import math
from enum import IntEnum

import torch
import triton
import triton.language as tl

from worker.kernels.reference import linear as reference
from worker.kernels.reference.linear import LinearOperation
from worker.kernels.reference.quantized import E2M1_LEVELS, WHOLE_LEVELS, Coding, Quantized
from worker.kernels.triton.launch import early, follow


class Levels(IntEnum):
    """How nibbles become numbers."""

    TABLE = 0
    """From memory."""
    WHOLE = 1
    """``WHOLE_LEVELS``."""
    FLOATS = 2
    """``E2M1_LEVELS``."""


_WHOLE, _FLOATS = tl.constexpr(int(Levels.WHOLE)), tl.constexpr(int(Levels.FLOATS))
_INTEGER = tl.constexpr(int(Coding.INTEGER))
_NIBBLE = tl.constexpr(int(Coding.NIBBLE))
LEAST_INPUTS = 16
"""At a time: what the matrix instructions take."""
_FEW = 32
_MOST_INPUTS = {True: 128, False: 64}
"""For up to ``_FEW`` rows in 16 bits, and beyond: registers, and what a block may share."""
_OUTPUTS = {True: 32, False: 64}
"""The same. PERF: the 4,096 outputs of a layer are 128 programs then, not 64, for the 132
multiprocessors of an H200."""
_STAGES = {True: 5, False: 3}
"""The same. PERF: with 5, four tiles are on their way, not two: memory is the limit there."""
_LEAST_ROWS = 16
_MOST_ROWS = 64


@triton.jit
def _float8(code):
    """Numbers of e4m3, from its bits (int32). What has no exponent is 2^-6 too large at first."""
    size = code & 0x7F
    tiny = (size < 8).to(tl.int32)
    bits = (size << 20) + (120 << 23) + (tiny << 23)
    value = bits.to(tl.float32, bitcast=True) - tiny.to(tl.float32) * 0.015625
    return tl.where((code & 0x80) != 0, -value, value)


@triton.jit
def _e2m1(code):
    """Numbers of 4-bit floats, from their bits (int32). What has no exponent is 1 too large."""
    size = code & 7
    tiny = (size < 2).to(tl.int32)
    bits = (size << 22) + (126 << 23) + (tiny << 23)
    value = bits.to(tl.float32, bitcast=True) - tiny.to(tl.float32)
    return tl.where((code & 8) != 0, -value, value)


@triton.jit
def _numbers(
    codes, levels, inside, CODING: tl.constexpr, LEVELS: tl.constexpr, INPUTS: tl.constexpr
):
    """What the codes at [outputs] (pointers to their first) stand for, [outputs, INPUTS]."""
    if CODING == _NIBBLE:
        at = codes[:, None] + tl.arange(0, INPUTS // 2)[None, :]
        both = tl.load(at, mask=inside[:, None], other=0).to(tl.int32)
        if LEVELS == _WHOLE:
            return tl.interleave((both & 15) - 8, (both >> 4) - 8).to(tl.float32)
        if LEVELS == _FLOATS:
            return tl.interleave(_e2m1(both & 15), _e2m1(both >> 4))
        return tl.interleave(tl.load(levels + (both & 15)), tl.load(levels + (both >> 4)))
    at = codes[:, None] + tl.arange(0, INPUTS)[None, :]
    code = tl.load(at, mask=inside[:, None], other=0).to(tl.int32)
    if CODING == _INTEGER:
        return code.to(tl.float32)
    return _float8(code)


@triton.jit
def scaled_products(
    some, codes, levels, scales, offsets, group, inside,
    GROUP: tl.constexpr, CODING: tl.constexpr, LEVELS: tl.constexpr, OFFSETS: tl.constexpr,
    INPUTS: tl.constexpr,
):  # fmt: skip
    """``some`` [rows, INPUTS] times what the codes at [outputs] stand for, in float32.

    ``codes`` are pointers to the first of each output, ``group`` [outputs] is where their scale is,
    or the first of them. Of several groups numbers are scaled, else their products are.
    """
    numbers = _numbers(codes, levels, inside, CODING, LEVELS, INPUTS)
    if GROUP < INPUTS:
        parts: tl.constexpr = INPUTS // GROUP
        which = group[:, None] + tl.arange(0, parts)[None, :]
        scale = tl.load(scales + which, mask=inside[:, None], other=0.0)
        outputs: tl.constexpr = numbers.shape[0]
        grouped = tl.reshape(numbers, (outputs, parts, GROUP)) * scale[:, :, None]
        numbers = tl.reshape(grouped, (outputs, INPUTS))
        return tl.dot(some, tl.trans(numbers.to(some.dtype)), input_precision="ieee")
    products = tl.dot(some, tl.trans(numbers.to(some.dtype)), input_precision="ieee")
    products *= tl.load(scales + group, mask=inside, other=0.0)[None, :]
    if OFFSETS:
        offset = tl.load(offsets + group, mask=inside, other=0.0)
        products += tl.sum(some.to(tl.float32), 1)[:, None] * offset[None, :]
    return products


@triton.jit(do_not_specialize=["rows"])  # they change from step to step
def _coded_linear(
    x,
    x_row,
    codes,
    codes_row,
    scales,
    offsets,
    levels,
    bias,
    output,
    rows,
    outputs,
    inputs,
    groups,
    GROUP: tl.constexpr,
    CODING: tl.constexpr,
    LEVELS: tl.constexpr,
    OFFSETS: tl.constexpr,
    BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    EARLY: tl.constexpr,
):
    """ROWS rows of x [rows, inputs], OUTPUTS outputs: output [rows, outputs]."""
    follow(EARLY)
    n = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    m = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    inside, here = n < outputs, m < rows
    wide = n.to(tl.int64)
    where_x = x + m.to(tl.int64)[:, None] * x_row + tl.arange(0, INPUTS)[None, :]
    where_codes = codes + wide * codes_row
    where_scales = wide * groups
    sums = tl.zeros((ROWS, OUTPUTS), tl.float32)
    for k in range(0, inputs, INPUTS):
        some = tl.load(where_x + k, mask=here[:, None], other=0.0)
        first = where_codes + (k // 2 if CODING == _NIBBLE else k)
        sums += scaled_products(
            some, first, levels, scales, offsets, where_scales + k // GROUP, inside,
            GROUP, CODING, LEVELS, OFFSETS, INPUTS,
        )  # fmt: skip
    if BIAS:
        sums += tl.load(bias + n, mask=inside, other=0.0).to(tl.float32)[None, :]
    where = output + m.to(tl.int64)[:, None] * outputs + wide[None, :]
    tl.store(where, sums.to(output.dtype.element_ty), mask=here[:, None] & inside[None, :])


def pack_codes(weight: Quantized, bias: torch.Tensor | None) -> LinearOperation:
    """As the reference's; which it is for groups that the kernel does not take."""
    kind = kind_of(weight.levels)
    even = even_inputs(weight, kind)
    if even < LEAST_INPUTS:
        return reference.pack(weight, bias)
    outputs, inputs = weight.shape
    unused = weight.scales
    offsets = unused if weight.offsets is None else weight.offsets
    levels = unused if weight.levels is None else weight.levels
    order = weight.order

    def apply(x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous() if order is None else x.index_select(1, order)
        rows = len(x)
        y = x.new_empty((rows, outputs))
        if not rows:
            return y
        few = rows <= _FEW and x.dtype.itemsize == 2
        together = min(_MOST_ROWS, max(_LEAST_ROWS, triton.next_power_of_2(rows)))
        at_once = _OUTPUTS[few]
        grid = (math.ceil(outputs / at_once), math.ceil(rows / together))
        _coded_linear[grid](
            x, x.stride(0), weight.codes, weight.codes.stride(0), weight.scales, offsets, levels,
            unused if bias is None else bias, y, rows, outputs, inputs, weight.scales.shape[1],
            GROUP=weight.group, CODING=int(weight.coding), LEVELS=int(kind),
            OFFSETS=weight.offsets is not None, BIAS=bias is not None, ROWS=together,
            OUTPUTS=at_once, INPUTS=min(even, _MOST_INPUTS[few]), num_warps=4 if few else 8,
            num_stages=_STAGES[few], **early(x.device),
        )  # fmt: skip
        return y

    return apply


def even_inputs(weight: Quantized, kind: Levels) -> int:
    """A power of two: as many inputs, or less, may be computed at a time.

    They are of one group, so that products are of exact numbers and scaled then. Levels of a table
    are rounded anyhow, and scales of floats are powers of two: these numbers are scaled before,
    however short their groups are.
    """
    group, inputs = weight.group, weight.shape[1]
    even = group & -group
    scaled = weight.levels is not None and kind is not Levels.WHOLE and weight.offsets is None
    return inputs & -inputs if scaled and even == group else even


def kind_of(levels: torch.Tensor | None) -> Levels:
    """Waits for the device: once, at load."""
    known = {WHOLE_LEVELS: Levels.WHOLE, E2M1_LEVELS: Levels.FLOATS}
    return Levels.TABLE if levels is None else known.get(tuple(levels.tolist()), Levels.TABLE)
