"""Triton kernels: one token for each row of logits, greedy or drawn, and its log-probability.

The noise is that of ``worker.noise``, made where it is used. Programs look at some tokens of a row
each; a second kernel combines what they found. Nothing depends on other rows.
"""

import torch
import triton
import triton.language as tl

_LANES = 512
"""Of four tokens each: what one counter of Philox gives numbers for."""
_LARGEST = tl.constexpr(1.0 - 2.0**-24)
_STEP = tl.constexpr(2.0**-32)


@triton.jit
def _log_times(seed, position, lanes, LANES: tl.constexpr):
    """Logarithms of the exponential noise of tokens 4 · lane …: [4 · LANES] float32."""
    seed = tl.full([LANES], 0, tl.int64) + seed
    place = (tl.full([LANES], 0, tl.int64) + position).to(tl.uint32)
    zero = tl.full([LANES], 0, tl.uint32)
    word0, word1, word2, word3 = tl.philox(seed, lanes.to(tl.uint32), place, zero, zero, 10)
    words = tl.join(tl.join(word0, word2), tl.join(word1, word3))
    uniform = (tl.reshape(words, [4 * LANES]).to(tl.float32) + 0.5) * _STEP
    uniform = tl.minimum(uniform, _LARGEST)
    # -log1p(-uniform), exact for small ones too: Kahan's, as Triton has no log1p.
    rest = 1.0 - uniform
    lost = 1.0 - rest
    ratio = uniform / tl.where(lost == 0.0, 1.0, lost)
    times = tl.where(lost == 0.0, uniform, -tl.log(rest) * ratio)
    return tl.log(times)


@triton.jit
def _race(
    logits,
    logits_row,
    temperature,
    seeds,
    positions,
    found,
    winners,
    vocabulary,
    LANES: tl.constexpr,
):
    """Some tokens of one row: found [4, n, parts] float32, winners [n, parts] int32.

    Of each part: the best of the race, its logit, the largest logit, and the sum of the
    exponentials relative to that.
    """
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    lanes = part * LANES + tl.arange(0, LANES)
    tokens = part * LANES * 4 + tl.arange(0, 4 * LANES)
    inside = tokens < vocabulary
    values = tl.load(logits + row * logits_row + tokens, mask=inside, other=float("-inf"))
    heat = tl.load(temperature + row)
    race = values
    if heat > 0.0:
        times = _log_times(tl.load(seeds + row), tl.load(positions + row), lanes, LANES)
        race = tl.where(inside, values - heat * times, float("-inf"))
    best, winner = tl.max(race, 0, return_indices=True, return_indices_tie_break_left=True)
    most = tl.max(values, 0)
    divisor = tl.where(heat > 0.0, heat, 1.0)
    # Of a part without any token that may be chosen, -inf less -inf would be NaN.
    base = tl.where(most == float("-inf"), 0.0, most)
    total = tl.sum(tl.where(inside, tl.exp((values - base) / divisor), 0.0), 0)
    token = tl.minimum(part * LANES * 4 + winner, vocabulary - 1)
    place = row * tl.num_programs(1) + part
    size = tl.num_programs(0).to(tl.int64) * tl.num_programs(1)
    tl.store(winners + place, token)
    tl.store(found + place, best)
    tl.store(found + size + place, tl.load(logits + row * logits_row + token))
    tl.store(found + 2 * size + place, most)
    tl.store(found + 3 * size + place, total)


@triton.jit
def _finish(
    found,
    winners,
    temperature,
    ids,
    logprobs,
    parts,
    PARTS: tl.constexpr,
):
    """One row: from what its parts have found to its token."""
    row = tl.program_id(0).to(tl.int64)
    part = tl.arange(0, PARTS)
    inside = part < parts
    place = row * parts + part
    size = tl.num_programs(0).to(tl.int64) * parts
    best = tl.load(found + place, mask=inside, other=float("-inf"))
    _, winner = tl.max(best, 0, return_indices=True, return_indices_tie_break_left=True)
    winner = tl.minimum(winner, parts - 1)
    token = tl.load(winners + row * parts + winner)
    logit = tl.load(found + size + row * parts + winner)
    mosts = tl.load(found + 2 * size + place, mask=inside, other=float("-inf"))
    totals = tl.load(found + 3 * size + place, mask=inside, other=0.0)
    heat = tl.load(temperature + row)
    divisor = tl.where(heat > 0.0, heat, 1.0)
    most = tl.max(mosts, 0)
    # All -inf: most - most is NaN, and so is the answer, which is what such a row has.
    shares = tl.where(mosts == float("-inf"), 0.0, tl.exp((mosts - most) / divisor))
    total = tl.sum(totals * shares, 0)
    tl.store(ids + row, token.to(tl.int64))
    tl.store(logprobs + row, (logit - most) / divisor - tl.log(total))


def draw(
    logits: torch.Tensor, temperature: torch.Tensor, seeds: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """As the reference's; the logits of a row side by side."""
    rows, vocabulary = logits.shape
    ids = torch.empty(rows, dtype=torch.int64, device=logits.device)
    logprobs = torch.empty(rows, dtype=torch.float32, device=logits.device)
    if not rows:
        return ids, logprobs
    parts = triton.cdiv(vocabulary, 4 * _LANES)
    found = torch.empty((4, rows, parts), dtype=torch.float32, device=logits.device)
    winners = torch.empty((rows, parts), dtype=torch.int32, device=logits.device)
    _race[(rows, parts)](
        logits, logits.stride(0), temperature, seeds, positions, found, winners, vocabulary,
        LANES=_LANES, num_warps=4,
    )  # fmt: skip
    _finish[(rows,)](
        found, winners, temperature, ids, logprobs, parts,
        PARTS=triton.next_power_of_2(parts), num_warps=1,
    )  # fmt: skip
    return ids, logprobs
