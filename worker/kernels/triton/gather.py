"""Triton kernel: the inputs of a decoding step, from state that stays on the device."""

import torch
import triton
import triton.language as tl

from common.messages import BLOCK_TOKENS
from worker.kernels.reference.gather import DecodeInputs, DecodeRows

_ROWS = 128
_EVEN = 2
"""Numbers of 8 bytes: where each of the inputs begins is a multiple of 16 bytes, for any count of
rows. Triton compiles kernels anew for arguments that begin elsewhere."""


@triton.jit(do_not_specialize=["table_row", "found_row", "count"])  # they change from step to step
def _gather(
    sequences,
    offsets,
    drafts,
    last_tokens,
    lengths,
    tables,
    table_row,
    found,
    found_row,
    count,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
):
    """ROWS rows of n: found [4, n] int64, its rows ``found_row`` apart."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < count
    sequence = tl.load(sequences + row, mask=inside, other=0).to(tl.int64)
    offset = tl.load(offsets + row, mask=inside, other=0).to(tl.int64)
    last = tl.load(last_tokens + sequence, mask=inside, other=0).to(tl.int64)
    token = tl.where(offset == 0, last, tl.load(drafts + row, mask=inside, other=0).to(tl.int64))
    length = tl.load(lengths + sequence, mask=inside, other=1).to(tl.int64) + offset
    position = length - 1
    block = tl.load(tables + sequence * table_row + position // BLOCK, mask=inside, other=0)
    slot = block.to(tl.int64) * BLOCK + position % BLOCK
    tl.store(found + row, token, mask=inside)
    tl.store(found + found_row + row, position, mask=inside)
    tl.store(found + 2 * found_row + row, slot, mask=inside)
    tl.store(found + 3 * found_row + row, length, mask=inside)


def gather_inputs(
    rows: DecodeRows, last_tokens: torch.Tensor, lengths: torch.Tensor, tables: torch.Tensor
) -> DecodeInputs:
    """As the reference's; the blocks of a sequence side by side."""
    count = len(rows.sequences)
    shape = (4, -(-count // _EVEN) * _EVEN)
    found = torch.empty(shape, dtype=torch.int64, device=rows.sequences.device)
    if count:
        _gather[(triton.cdiv(count, _ROWS),)](
            rows.sequences, rows.offsets, rows.drafts, last_tokens, lengths, tables,
            tables.stride(0), found, found.stride(0), count,
            BLOCK=BLOCK_TOKENS, ROWS=_ROWS, num_warps=1,
        )  # fmt: skip
    return DecodeInputs(*found[:, :count])
