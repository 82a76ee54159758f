"""Reference kernel: rotary position embedding (Su et al. 2021), by halves of a head."""

import torch


def rotate_(heads: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> None:
    """Rotates queries and keys in place.

    heads [T, heads, channels], may be a part of a larger tensor; cosines and sines [T, 1, channels]
    in its dtype, the first half of the sines negated: channel i of the first half is paired with
    channel i of the second.
    """
    swapped = heads.roll(heads.shape[-1] // 2, -1)
    heads.mul_(cosines).addcmul_(swapped, sines)
