"""Triton kernel: the penalties on tokens that a sequence already has, in one pass over the logits.

Rows that ask for none are not looked at; of the others, only the counts that they need are read.
"""

import torch
import triton
import triton.language as tl

from worker.kernels.reference.penalties import Penalties

_BLOCK = 2048


@triton.jit(do_not_specialize=["everywhere"])  # it changes from batch to batch
def _penalize(
    logits,
    logits_row,
    rows,
    repetition,
    frequency,
    output_frequency,
    output_presence,
    seen_rows,
    output_rows,
    seen,
    output,
    lengths,
    vocabulary,
    everywhere,
    BLOCK: tl.constexpr,
):
    """BLOCK tokens of one row that asks: logits [R, vocabulary] float32, in place."""
    number = tl.program_id(0).to(tl.int64)
    row = tl.where(everywhere != 0, number, tl.load(rows + number))
    tokens = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    seen_row = tl.load(seen_rows + number)
    output_row = tl.load(output_rows + number)
    inside = tokens < vocabulary
    where = logits + row * logits_row + tokens
    value = tl.load(where, mask=inside, other=0.0)
    if seen_row >= 0:
        counts = tl.load(seen + seen_row * vocabulary + tokens, mask=inside, other=0)
        factor = tl.load(repetition + number)
        punished = tl.where(value > 0, value / factor, value * factor)
        value = tl.where(counts > 0, punished, value)
        length = tl.load(lengths + row).to(tl.float32)
        value -= counts.to(tl.float32) / length * tl.load(frequency + number)
    if output_row >= 0:
        counts = tl.load(output + output_row * vocabulary + tokens, mask=inside, other=0)
        value -= counts.to(tl.float32) * tl.load(output_frequency + number)
        value -= tl.where(counts > 0, tl.load(output_presence + number), 0.0)
    tl.store(where, value, mask=inside)


def penalize_(
    logits: torch.Tensor,
    penalties: Penalties,
    seen: torch.Tensor,
    output: torch.Tensor,
    lengths: torch.Tensor,
) -> None:
    """As the reference's; both tables contiguous."""
    vocabulary = logits.shape[1]
    count = len(penalties.repetition)
    if not count:
        return
    rows = penalties.rows
    _penalize[(count, triton.cdiv(vocabulary, _BLOCK))](
        logits,
        logits.stride(0),
        penalties.seen_rows if rows is None else rows,
        penalties.repetition,
        penalties.frequency,
        penalties.output_frequency,
        penalties.output_presence,
        penalties.seen_rows,
        penalties.output_rows,
        seen,
        output,
        lengths,
        vocabulary,
        int(rows is None),
        BLOCK=_BLOCK,
        num_warps=4,
    )
