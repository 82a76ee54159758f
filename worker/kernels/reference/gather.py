"""Reference kernel: the inputs of a decoding step, from state that stays on the device."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from common.messages import BLOCK_TOKENS


@dataclass(frozen=True, slots=True)
class DecodeInputs:
    """Of n rows, one token each; all int64."""

    ids: torch.Tensor  # [n]
    positions: torch.Tensor  # [n]
    slots: torch.Tensor  # [n], where keys and values go: block · 16 + offset
    lengths: torch.Tensor  # [n], this token included


@dataclass(frozen=True, slots=True)
class DecodeRows:
    """What decodes: of n rows, one token each; any integers."""

    sequences: torch.Tensor  # [n], their numbers
    offsets: torch.Tensor  # [n], tokens after the last known one; 0: that one
    drafts: torch.Tensor  # [n], the token where there is an offset


Gather = Callable[[DecodeRows, torch.Tensor, torch.Tensor, torch.Tensor], DecodeInputs]
"""As ``gather_inputs``."""


def gather_inputs(
    rows: DecodeRows, last_tokens: torch.Tensor, lengths: torch.Tensor, tables: torch.Tensor
) -> DecodeInputs:
    """Each row's token (its sequence's last, or a draft), position and place in the cache.

    last_tokens [S] and lengths [S], any integers, the last token included; tables [S, blocks], any
    integers, in which a sequence has blocks for its drafts, too.
    """
    sequences = rows.sequences.long()
    known = lengths.index_select(0, sequences).long() + rows.offsets
    ids = torch.where(rows.offsets == 0, last_tokens.index_select(0, sequences), rows.drafts)
    positions = known - 1
    columns = positions.div(BLOCK_TOKENS, rounding_mode="floor")
    blocks = tables[sequences, columns].long()
    slots = blocks * BLOCK_TOKENS + positions % BLOCK_TOKENS
    return DecodeInputs(ids.long(), positions, slots, known)
