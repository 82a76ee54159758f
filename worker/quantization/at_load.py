"""Codes of weights that are not quantized, made as they are loaded: ``--quantize eetq`` and others.

By rounding to nearest alone, with scales from the largest number of each output or group. What a
name computes is the same on every device; ``docs/compatibility.md`` says where TGI's differs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from worker.kernels.reference.quantized import Coding, Quantized, Weight, joined, nibbles

_MOST_INTEGER = 127.0
_MOST_FLOAT8 = 448.0
_GROUP = 64
_LEAST_GROUP = 32
_TOGETHER = 1 << 22
"""Numbers of a weight that are coded at a time: each takes up to 20 bytes meanwhile, which for an
output layer whose codes have half a byte would be more than the whole model takes."""
NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""Normal floats (Dettmers et al. 2023)."""
_FP4_SIZES = (0.0, 0.0625 / 12, 8 / 12, 1.0, 4 / 12, 6 / 12, 2 / 12, 3 / 12)
FP4 = (*_FP4_SIZES, *(-size for size in _FP4_SIZES))
"""bitsandbytes' floats of 4 bits: a sign, and the sizes that its tables give to the other three."""


@dataclass(frozen=True, slots=True)
class AtLoad:
    """What becomes of weights."""

    description: str
    encode: Callable[[torch.Tensor], Weight]
    """ValueError for a matrix with numbers that are not finite."""
    bits: float
    """Of each weight, scales included."""
    output_layer: bool
    """Whether the output layer is coded, too, as in TGI."""


def to_integers(weight: torch.Tensor) -> Weight:
    """8 bits by output: code = round(weight / scale), scale = largest / 127."""

    def encode(rows: torch.Tensor) -> Quantized:
        scales = _scales(rows, _MOST_INTEGER)
        codes = (rows / scales).round_().clamp_(-_MOST_INTEGER, _MOST_INTEGER)
        return Quantized(Coding.INTEGER, codes.to(torch.int8), scales)

    return _by_rows(encode, weight)


def to_float8(weight: torch.Tensor) -> Weight:
    """e4m3 by output: scale = largest / 448."""

    def encode(rows: torch.Tensor) -> Quantized:
        scales = _scales(rows, _MOST_FLOAT8)
        codes = (rows / scales).clamp_(-_MOST_FLOAT8, _MOST_FLOAT8)
        return Quantized(Coding.FLOAT8, codes.to(torch.float8_e4m3fn).view(torch.uint8), scales)

    return _by_rows(encode, weight)


def to_nf4(weight: torch.Tensor) -> Weight:
    """The nearest of 16 normal floats, in groups of 64 inputs."""
    return _to_levels(weight, NF4)


def to_fp4(weight: torch.Tensor) -> Weight:
    """The nearest of 16 floats, in groups of 64 inputs."""
    return _to_levels(weight, FP4)


BY_NAME = {
    "eetq": AtLoad("int8 by output", to_integers, 8.0, False),
    "bitsandbytes": AtLoad("int8 by output", to_integers, 8.0, True),
    "fp8": AtLoad("fp8 (e4m3) by output", to_float8, 8.0, True),
    "bitsandbytes-nf4": AtLoad("nf4 in groups of 64", to_nf4, 4.5, True),
    "bitsandbytes-fp4": AtLoad("fp4 in groups of 64", to_fp4, 4.5, True),
}
"""Of ``--quantize``."""


def _to_levels(weight: torch.Tensor, levels: tuple[float, ...]) -> Weight:
    inputs = weight.shape[1]
    group = next((n for n in (_GROUP, _LEAST_GROUP) if inputs % n == 0), 0)
    if not group:
        return weight
    table = torch.tensor(levels, device=weight.device)
    ascending, which = table.sort(stable=True)
    between = (ascending[1:] + ascending[:-1]) / 2

    def encode(rows: torch.Tensor) -> Quantized:
        groups = rows.view(len(rows), -1, group)
        scales = _scales(groups, 1.0)
        codes = which[torch.bucketize(groups / scales, between)].view(rows.shape)
        return Quantized(Coding.NIBBLE, nibbles(codes), scales.squeeze(-1), levels=table)

    return _by_rows(encode, weight)


def _by_rows(encode: Callable[[torch.Tensor], Quantized], weight: torch.Tensor) -> Quantized:
    """The codes of a weight, some rows of which at a time are handed over in float32.

    Some checkpoints have it turned: rows then lie across its memory, which torch warns about.
    """
    some = torch.split(weight, max(1, _TOGETHER // weight.shape[1]))
    whole = joined([encode(rows.float().contiguous()) for rows in some])
    assert whole is not None, "codes of one kind"
    return whole


def _scales(weight: torch.Tensor, most: float) -> torch.Tensor:
    """Of each row of the last dimension, which stays, of one; 1 where all are 0.

    ValueError where not all are finite: rounded, they would be ordinary numbers.
    """
    largest = weight.abs().amax(dim=-1, keepdim=True)
    if not bool(largest.isfinite().all()):
        raise ValueError("it holds numbers that are not finite")
    return torch.where(largest > 0, largest / most, 1.0)
