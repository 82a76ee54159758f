"""Triton kernels: the k largest logits of a row, or the nucleus, found without sorting.

Floats are ordered as their bits are, once negative ones have been turned around: so the smallest
logit that stays is found two bits of it at a time, from what the row holds at and above three
pivots. A program has a row to itself and adds up in one order: what it does depends on nothing
else. PERF: 19 times over a row, which stays in the processor's second cache; a sort moves it
through memory more often, and rows of 128k tokens by the dozen do not fit there then.
"""

import torch
import triton
import triton.language as tl

_BLOCK = 4096
_STAGES = 4
"""PERF: three blocks are on their way while one is looked at. A program has a multiprocessor to
itself: nobody else computes there while it waits."""


@triton.jit
def _ordered(values):
    """Bits that compare as the values do: uint32 of float32; both zeros are one."""
    bits = tl.where(values == 0.0, 0.0, values).to(tl.int32, bitcast=True)
    return tl.where(bits < 0, ~bits, bits ^ -2147483648).to(tl.uint32, bitcast=True)


@triton.jit
def _weights(values, base, BY_MASS: tl.constexpr):
    """What a token counts: its probability times a constant, or one."""
    if BY_MASS:
        return tl.exp(values - base)
    return tl.full(values.shape, 1.0, tl.float32)


@triton.jit
def _keep(
    logits,
    logits_row,
    wanted,
    vocabulary,
    BY_MASS: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    """One row of logits [n, vocabulary] float32, in place; wanted [n], a mass or a number.

    BY_MASS: the fewest of the largest whose mass reaches it, equal ones by id. Else: all that are
    at least the k-th largest.
    """
    row = logits + tl.program_id(0).to(tl.int64) * logits_row
    lanes = tl.arange(0, BLOCK)
    target = tl.load(wanted + tl.program_id(0)).to(tl.float32)
    base = 0.0
    if BY_MASS:
        largest = tl.full([BLOCK], float("-inf"), tl.float32)
        for start in tl.range(0, vocabulary, BLOCK, num_stages=STAGES):
            inside = start + lanes < vocabulary
            values = tl.load(row + start + lanes, mask=inside, other=float("-inf"))
            largest = tl.maximum(largest, values)
        most = tl.max(largest, 0)
        # Of a row without any token that may be chosen, -inf less -inf would be NaN.
        base = tl.where(most == float("-inf"), 0.0, most)
        masses = tl.zeros([BLOCK], tl.float32)
        for start in tl.range(0, vocabulary, BLOCK, num_stages=STAGES):
            inside = start + lanes < vocabulary
            values = tl.load(row + start + lanes, mask=inside, other=float("-inf"))
            masses += _weights(values, base, BY_MASS)
        target *= tl.sum(masses, 0)

    # The largest pivot at or above which there is as much as is wanted. Where that is nowhere (a
    # NaN, or a sum that rounding has left below 1) it stays 0, and everything is kept.
    pivot = tl.full([], 0, tl.uint32)
    digits = tl.arange(0, 4).to(tl.uint32)
    for number in range(16):
        shift = 30 - 2 * number
        pivots = pivot + (digits << shift)
        found = tl.zeros([4, BLOCK], tl.float32)
        for start in tl.range(0, vocabulary, BLOCK, num_stages=STAGES):
            inside = start + lanes < vocabulary
            values = tl.load(row + start + lanes, mask=inside, other=float("-inf"))
            weights = tl.where(inside, _weights(values, base, BY_MASS), 0.0)
            above = _ordered(values)[None, :] >= pivots[:, None]
            found += tl.where(above, weights[None, :], 0.0)
        enough = tl.sum((tl.sum(found, 1) >= target).to(tl.int32), 0)
        pivot += tl.maximum(enough - 1, 0).to(tl.uint32) << shift

    # Above the pivot all stay; of those that equal it, the first ones by id do.
    before = 0.0
    each = 0.0
    if BY_MASS:
        masses = tl.zeros([BLOCK], tl.float32)
        equals = tl.zeros([BLOCK], tl.float32)
        for start in tl.range(0, vocabulary, BLOCK, num_stages=STAGES):
            inside = start + lanes < vocabulary
            values = tl.load(row + start + lanes, mask=inside, other=float("-inf"))
            weights = _weights(values, base, BY_MASS)
            keys = _ordered(values)
            masses += tl.where(keys > pivot, weights, 0.0)
            equals = tl.maximum(equals, tl.where(keys == pivot, weights, 0.0))
        before = tl.sum(masses, 0)
        each = tl.max(equals, 0)
    passed = 0
    for start in tl.range(0, vocabulary, BLOCK, num_stages=STAGES):
        inside = start + lanes < vocabulary
        values = tl.load(row + start + lanes, mask=inside, other=float("-inf"))
        keys = _ordered(values)
        dropped = keys < pivot
        if BY_MASS:
            equal = ((keys == pivot) & inside).to(tl.int32)
            rank = passed + tl.cumsum(equal, 0) - equal
            late = before + rank.to(tl.float32) * each >= target
            dropped = dropped | ((equal > 0) & late)
            passed += tl.sum(equal, 0)
        tl.store(row + start + lanes, float("-inf"), mask=inside & dropped)


def top_k(logits: torch.Tensor, k: torch.Tensor, largest: int) -> torch.Tensor:
    """As ``worker.filters``'s, in place; the logits of a row side by side."""
    return _kept(logits, k, by_mass=False)


def top_p(logits: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """As ``worker.filters``'s, but for the rounding of sums at the cut; in place.

    The logits of a row side by side.
    """
    return _kept(logits, p, by_mass=True)


def _kept(logits: torch.Tensor, wanted: torch.Tensor, *, by_mass: bool) -> torch.Tensor:
    rows, vocabulary = logits.shape
    if rows:
        block = min(_BLOCK, triton.next_power_of_2(vocabulary))
        _keep[(rows,)](
            logits, logits.stride(0), wanted, vocabulary, BY_MASS=by_mass, BLOCK=block,
            STAGES=_STAGES, num_warps=16 if block == _BLOCK else 4,
        )  # fmt: skip
    return logits
