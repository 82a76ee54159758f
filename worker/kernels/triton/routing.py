"""Triton kernels: which experts each token goes to, and which tokens each expert has.

Nothing of it is read by the host: what follows finds its part from where the experts' pairs begin.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from worker.kernels.mixture import Routing
from worker.kernels.triton.launch import early, follow

_PAIRS = 1024
"""Looked at together."""
_LEAST, _MOST = tl.constexpr(-3e38), tl.constexpr(3e38)


class Routed(NamedTuple):
    """Of T tokens with k experts each: T · k pairs, numbered token by token."""

    weights: torch.Tensor  # [T, k] float32
    order: torch.Tensor  # [T · k] int32, pairs by their experts; an expert's in their order
    starts: torch.Tensor  # [experts + 1] int32, where each expert's begin in ``order``


@triton.jit
def _choose(
    logits,
    logits_row,
    weights,
    experts,
    count,
    CHOSEN: tl.constexpr,
    NORMALIZED: tl.constexpr,
    EXPERTS: tl.constexpr,
    PLACES: tl.constexpr,
    EARLY: tl.constexpr,
):
    """One token: logits [T, count] to weights [T, CHOSEN] float32, experts [T, CHOSEN] int32.

    Of equally likely experts the first. Experts exist even where logits are no numbers, or endless.
    """
    follow(EARLY)
    token = tl.program_id(0).to(tl.int64)
    e, place = tl.arange(0, EXPERTS), tl.arange(0, PLACES)
    where = logits + token * logits_row + e
    numbers = tl.load(where, mask=e < count, other=0.0).to(tl.float32)
    numbers = tl.where(numbers > _LEAST, numbers, _LEAST)  # no number is not, either
    numbers = tl.where(numbers < _MOST, numbers, _MOST)  # endless less endless would be none
    numbers = tl.where(e < count, numbers, float("-inf"))
    likely = tl.exp(numbers - tl.max(numbers, 0))
    likely = likely / tl.sum(likely, 0)
    found = tl.zeros((PLACES,), tl.float32)
    which = tl.zeros((PLACES,), tl.int32)
    for n in tl.static_range(CHOSEN):
        expert = tl.argmax(likely, 0)
        found = tl.where(place == n, tl.sum(tl.where(e == expert, likely, 0.0), 0), found)
        which = tl.where(place == n, expert, which)
        likely = tl.where(e == expert, -1.0, likely)
    if NORMALIZED:
        found = found / tl.sum(found, 0)
    where = token * CHOSEN + place
    tl.store(weights + where, found, mask=place < CHOSEN)
    tl.store(experts + where, which, mask=place < CHOSEN)


@triton.jit(do_not_specialize=["pairs"])  # they change from step to step
def _sort(experts, order, starts, pairs, count, PAIRS: tl.constexpr, EARLY: tl.constexpr):
    """One expert: experts [pairs] int32 to its part of ``order`` and ``starts``."""
    follow(EARLY)
    own = tl.program_id(0)
    before = 0
    for first in range(0, pairs, PAIRS):
        pair = first + tl.arange(0, PAIRS)
        expert = tl.load(experts + pair, mask=pair < pairs, other=count)
        before += tl.sum((expert < own).to(tl.int32), 0)
    tl.store(starts + own, before)
    for first in range(0, pairs, PAIRS):
        pair = first + tl.arange(0, PAIRS)
        expert = tl.load(experts + pair, mask=pair < pairs, other=count)
        here = (expert == own).to(tl.int32)
        tl.store(order + before + tl.cumsum(here, 0) - here, pair, mask=here != 0)
        before += tl.sum(here, 0)
    if own == count - 1:
        tl.store(starts + count, before)


def route(logits: torch.Tensor, routing: Routing) -> Routed:
    """Of logits [T, experts], T > 0, side by side: T + experts programs in two launches."""
    tokens, count = logits.shape
    chosen, device = routing.chosen, logits.device
    weights = torch.empty((tokens, chosen), dtype=torch.float32, device=device)
    experts = torch.empty((tokens, chosen), dtype=torch.int32, device=device)
    order = torch.empty(tokens * chosen, dtype=torch.int32, device=device)
    starts = torch.empty(count + 1, dtype=torch.int32, device=device)
    _choose[(tokens,)](
        logits, logits.stride(0), weights, experts, count,
        CHOSEN=chosen, NORMALIZED=routing.normalized, EXPERTS=triton.next_power_of_2(count),
        PLACES=triton.next_power_of_2(chosen), num_warps=1, **early(device),
    )  # fmt: skip
    _sort[(count,)](
        experts, order, starts, tokens * chosen, count, PAIRS=_PAIRS, num_warps=4, **early(device)
    )
    return Routed(weights, order, starts)
