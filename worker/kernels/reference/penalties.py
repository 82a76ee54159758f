"""Reference kernel: the penalties on tokens that a sequence already has, in place.

The formulas are those of ``worker.processors`` (Repetition, Frequency, OutputPenalties, in this
order), for all rows of a step at once, from parameters that lie on the device.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Penalties:
    """Of R rows. Where nothing is asked for: 1, 0, 0 and 0."""

    repetition: torch.Tensor  # [R] float32
    frequency: torch.Tensor  # [R] float32
    output_frequency: torch.Tensor  # [R] float32
    output_presence: torch.Tensor  # [R] float32
    seen_rows: torch.Tensor  # [R] int64, rows of the counts of prompt and output; -1: none needed
    output_rows: torch.Tensor  # [R] int64, the same of the output alone


def penalize_(
    logits: torch.Tensor,
    penalties: Penalties,
    seen: torch.Tensor,
    output: torch.Tensor,
    lengths: torch.Tensor,
) -> None:
    """Logits [R, vocabulary] float32; seen and output [rows, vocabulary] int32, counts of tokens;
    lengths [R], tokens of prompt and output. What a row changes depends on that row alone.
    """
    counts = _of(seen, penalties.seen_rows)
    factor = penalties.repetition[:, None]
    punished = torch.where(logits > 0, logits / factor, logits * factor)
    result = torch.where(counts > 0, punished, logits)
    result -= counts / lengths[:, None] * penalties.frequency[:, None]
    counts = _of(output, penalties.output_rows)
    result -= penalties.output_frequency[:, None] * counts
    result -= penalties.output_presence[:, None] * (counts > 0)
    logits.copy_(result)


def _of(table: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Counts [R, vocabulary], zeros for rows of -1."""
    if not len(table):
        return table.new_zeros((len(rows), table.shape[1]))
    return table[rows.clamp(min=0)] * (rows >= 0)[:, None]
