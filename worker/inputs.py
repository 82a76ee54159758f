"""The tensors of one step: what the engine assembles and the model reads. Knows no sequences' ids.

Rows are packed: all tokens of all sequences of the step, one after another, decoding sequences
first. T tokens, S sequences, D of which decode (exactly one token each).
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class StepInputs:
    """One forward pass."""

    token_ids: torch.Tensor  # [T] int64
    positions: torch.Tensor  # [T] int64, position of each token in its sequence
    slots: torch.Tensor  # [T] int64, where its key and value go: block * 16 + offset
    block_tables: torch.Tensor  # [S, max blocks] int64, padded with block 0
    lengths: torch.Tensor  # [S] int64, tokens of the sequence after this step
    lengths_host: tuple[int, ...]  # the same on the host; where a step is recorded, at most these
    query_lengths_host: tuple[int, ...]  # [S], tokens of the sequence in this step
    decode_sequences: int  # D: the first D sequences, one token each
    logit_rows: torch.Tensor  # [R] int64, rows of the packed tokens whose logits are wanted
    sequences_host: tuple[int, ...] = ()
    """[S], a number for each sequence that stays its own until it is released: for models that keep
    state of sequences themselves."""
    adapters_host: tuple[int, ...] = ()
    """[S], the number of each sequence's adapter, -1 for none; empty: none has one, or
    ``adapter_plan`` says who."""
    adapter_plan: torch.Tensor | None = None
    """[P] int64: the same on the device, as ``AdapterPlans`` lays it out."""

    @property
    def is_adapted(self) -> bool:
        """Whether some sequence has an adapter."""
        return bool(self.adapters_host) or self.adapter_plan is not None
