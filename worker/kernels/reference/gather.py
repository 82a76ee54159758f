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


Gather = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], DecodeInputs]
"""As ``gather_inputs``."""


def gather_inputs(
    rows: torch.Tensor, last_tokens: torch.Tensor, lengths: torch.Tensor, tables: torch.Tensor
) -> DecodeInputs:
    """The last token of each row's sequence, its position and its place in the cache.

    rows [n], any integers, numbers of sequences; last_tokens [S] and lengths [S], any integers, the
    last token included; tables [S, blocks], any integers.
    """
    known = lengths.index_select(0, rows).long()
    positions = known - 1
    columns = positions.div(BLOCK_TOKENS, rounding_mode="floor")
    blocks = tables[rows.long(), columns].long()
    slots = blocks * BLOCK_TOKENS + positions % BLOCK_TOKENS
    return DecodeInputs(last_tokens.index_select(0, rows).long(), positions, slots, known)
