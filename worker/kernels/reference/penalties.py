"""Reference kernel: the penalties on tokens that a sequence already has, in place.

In this order: repetition and frequency over prompt and output (TGI's), frequency and presence over
the output (OpenAI's); for all rows of a step at once, from parameters that lie on the device.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Penalties:
    """Of the n rows that ask for any. What a row does not ask for is 1, 0, 0 or 0."""

    rows: torch.Tensor | None  # [n] int64, which rows of the logits; None: all of them
    repetition: torch.Tensor  # [n] float32
    frequency: torch.Tensor  # [n] float32
    output_frequency: torch.Tensor  # [n] float32
    output_presence: torch.Tensor  # [n] float32
    seen_rows: torch.Tensor  # [n] int64, rows of the counts of prompt and output; -1: none needed
    output_rows: torch.Tensor  # [n] int64, the same of the output alone
    frequent: bool = True  # whether any row asks for the frequency of prompt and output
    counts_seen: bool = True  # whether any row needs counts of prompt and output
    counts_output: bool = True  # whether any row needs counts of the output


Penalize = Callable[[torch.Tensor, Penalties, torch.Tensor, torch.Tensor, torch.Tensor], None]
"""As ``penalize_``."""


def penalize_(
    logits: torch.Tensor,
    penalties: Penalties,
    seen: torch.Tensor,
    output: torch.Tensor,
    lengths: torch.Tensor,
) -> None:
    """Logits [R, vocabulary] float32, some of whose rows change: each by its own numbers alone.

    seen and output [rows, vocabulary] int32, counts of tokens; lengths [R] of any type, tokens of
    prompt and output.
    """
    rows = penalties.rows
    result = logits if rows is None else logits.index_select(0, rows)
    if penalties.counts_seen:
        counts = _of(seen, penalties.seen_rows)
        factor = penalties.repetition[:, None]
        punished = torch.where(result > 0, result / factor, result * factor)
        result = torch.where(counts > 0, punished, result)
        if penalties.frequent:
            known = lengths if rows is None else lengths.index_select(0, rows)
            result -= counts / known[:, None] * penalties.frequency[:, None]
    if penalties.counts_output:
        counts = _of(output, penalties.output_rows)
        result -= penalties.output_frequency[:, None] * counts
        result -= penalties.output_presence[:, None] * (counts > 0)
    if rows is not None:
        logits.index_copy_(0, rows, result)
    elif result is not logits:
        logits.copy_(result)


def _of(table: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Counts [n, vocabulary], zeros for rows of -1."""
    return table.index_select(0, rows.clamp(min=0)).mul_((rows >= 0)[:, None])
