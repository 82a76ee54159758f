"""Triton kernel: the inputs of a decoding step, from state that stays on the device."""

import torch
import triton
import triton.language as tl

_ROWS = 128


@triton.jit
def _gather(
    slots,
    last_tokens,
    lengths,
    ids,
    positions,
    count,
    ROWS: tl.constexpr,
):
    """ROWS rows of n."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = rows < count
    slot = tl.load(slots + rows, mask=inside, other=-1)
    used = slot >= 0
    token = tl.load(last_tokens + slot, mask=used, other=0)
    length = tl.load(lengths + slot, mask=used, other=1)
    tl.store(ids + rows, token.to(tl.int64), mask=inside)
    tl.store(positions + rows, length.to(tl.int64) - 1, mask=inside)


def gather_inputs(
    slots: torch.Tensor, last_tokens: torch.Tensor, lengths: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """As the reference's."""
    count = len(slots)
    ids = torch.empty(count, dtype=torch.int64, device=slots.device)
    positions = torch.empty_like(ids)
    if count:
        _gather[(triton.cdiv(count, _ROWS),)](
            slots, last_tokens, lengths, ids, positions, count, ROWS=_ROWS, num_warps=1
        )
    return ids, positions
