"""Reference kernel: the inputs of a decoding step, from state that stays on the device."""

import torch


def gather_inputs(
    slots: torch.Tensor, last_tokens: torch.Tensor, lengths: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The last token of each slot and its position: ids [n] int64, positions [n] int64.

    slots [n] int32; last_tokens [S] int64; lengths [S] int32, tokens of each sequence, the last one
    included. A negative slot is padding: token 0 at position 0.
    """
    used = slots >= 0
    chosen = slots.clamp(min=0).long()
    ids = torch.where(used, last_tokens.index_select(0, chosen), 0)
    positions = torch.where(used, lengths.index_select(0, chosen).long() - 1, 0)
    return ids, positions
