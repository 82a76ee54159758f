"""From a checkpoint's integers, scales and zero points to ``Quantized``: what formats share.

Groups may be as long as they like there; here all groups of a matrix are equally long, so a
shorter last one makes all of them as short as both allow.
"""

import math

import torch

from worker.kernels.reference.quantized import WHOLE_LEVELS, Coding, Quantized, nibbles


def of_integers(
    codes: torch.Tensor,
    scales: torch.Tensor,
    zeros: torch.Tensor | None,
    *,
    bits: int,
    group: int,
    order: torch.Tensor | None = None,
) -> Quantized:
    """Of ``(code - zero) · scale``.

    ``codes`` [outputs, inputs] from 0 on, 4 or 8 bits; ``scales`` and ``zeros`` [outputs, groups];
    zeros of None are the middle.
    """
    middle = 1 << (bits - 1)
    scales = scales.float()
    offsets = None
    if zeros is not None:
        distance = middle - zeros.float()
        if bool(distance.any()):
            offsets = distance * scales
    if bits == 4:
        coding, kept = Coding.NIBBLE, nibbles(codes)
        levels = torch.tensor(WHOLE_LEVELS)
    else:
        coding, kept = Coding.INTEGER, (codes.to(torch.int16) - middle).to(torch.int8)
        levels = None
    return evened(coding, kept, scales, offsets, levels, group=group, order=order)


def evened(
    coding: Coding,
    codes: torch.Tensor,
    scales: torch.Tensor,
    offsets: torch.Tensor | None = None,
    levels: torch.Tensor | None = None,
    *,
    group: int,
    order: torch.Tensor | None = None,
) -> Quantized:
    """With groups of equal length; those given are ``group`` inputs long, but for the last."""
    inputs = codes.shape[1] * (2 if coding is Coding.NIBBLE else 1)
    even = math.gcd(inputs, group)
    if group < inputs and even != group:
        which = torch.arange(0, inputs, even) // group
        scales = scales[:, which]
        offsets = None if offsets is None else offsets[:, which]
    return Quantized(coding, codes, scales.float().contiguous(), offsets, levels, order)


def by_rows(scales: torch.Tensor, outputs: int, block: int = 1) -> torch.Tensor:
    """Scales of ``block`` outputs each, or one of all, to [outputs, groups] float32."""
    scales = scales.float()
    if scales.numel() == 1:
        return scales.view(1, 1).expand(outputs, 1)
    if scales.dim() == 1:
        scales = scales[:, None]
    return scales.repeat_interleave(block, dim=0)[:outputs]
