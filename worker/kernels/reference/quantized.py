"""Weights in few bits: the one form that every quantized checkpoint is read into.

Knows no file formats and no kernels. Codes of a matrix are row by row, groups of inputs side by
side; what a code stands for is ``number · scale + offset``, computed in float32.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import torch

from worker.sharding import Cut


class Coding(IntEnum):
    """What codes are, as regions.h numbers it."""

    INTEGER = 0
    """8 bits, from -128 on."""
    FLOAT8 = 1
    """The bits of an e4m3."""
    NIBBLE = 2
    """4 bits that choose one of 16 levels; two in a byte, the first in its lower half."""


WHOLE_LEVELS = tuple(float(level) for level in range(-8, 8))
"""Of 4-bit integers around 8."""
_SIZES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
E2M1_LEVELS = (*_SIZES, *(-size for size in _SIZES))
"""Of 4-bit floats: a sign, two bits of an exponent, one of a fraction."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """A matrix [outputs, inputs]."""

    coding: Coding
    codes: torch.Tensor
    """int8 or uint8 [outputs, inputs]; of nibbles uint8 [outputs, inputs / 2]."""
    scales: torch.Tensor
    """float32 [outputs, groups]."""
    offsets: torch.Tensor | None = None
    """float32 [outputs, groups]: what zero points come to; None: 0."""
    levels: torch.Tensor | None = None
    """float32 [16], of nibbles."""
    order: torch.Tensor | None = None
    """int64 [inputs]: which input each column multiplies, where groups are not neighbours."""

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""
        rows, columns = self.codes.shape
        return rows, columns * self._per_byte

    @property
    def group(self) -> int:
        """Inputs that share a scale."""
        return self.shape[1] // self.scales.shape[1]

    @property
    def nbytes(self) -> int:
        """Of codes, scales and offsets."""
        return sum(
            part.nbytes for part in (self.codes, self.scales, self.offsets) if part is not None
        )

    @property
    def _per_byte(self) -> int:
        return 2 if self.coding is Coding.NIBBLE else 1

    def check(self) -> None:
        """ValueError unless every scale, offset and level is a finite number."""
        for name in ("scales", "offsets", "levels"):
            part = getattr(self, name)
            if part is not None and not bool(part.isfinite().all()):
                raise ValueError(f"of its {name} not all are finite numbers")

    def numbers(self) -> torch.Tensor:
        """What the codes are without scales, float32 [outputs, inputs]."""
        if self.coding is Coding.INTEGER:
            return self.codes.float()
        if self.coding is Coding.FLOAT8:
            return self.codes.view(torch.float8_e4m3fn).float()
        assert self.levels is not None
        both = torch.stack((self.codes & 15, self.codes >> 4), dim=-1)
        return self.levels[both.flatten(1).long()]

    def dequantized(self, dtype: torch.dtype) -> torch.Tensor:
        """The matrix itself, a new tensor [outputs, inputs]."""
        grouped = self.numbers().view(*self.scales.shape, self.group)
        grouped = grouped * self.scales[:, :, None]
        if self.offsets is not None:
            grouped += self.offsets[:, :, None]
        matrix = grouped.view(self.shape).to(dtype)
        if self.order is None:
            return matrix
        return torch.empty_like(matrix).index_copy_(1, self.order, matrix)

    def taken(self, rows: torch.Tensor) -> "Quantized":
        """These rows (int64), copied."""
        offsets = None if self.offsets is None else self.offsets[rows]
        return replace(self, codes=self.codes[rows], scales=self.scales[rows], offsets=offsets)

    def copied(self, device: torch.device) -> "Quantized":
        """A copy there."""
        names = ("codes", "scales", "offsets", "levels", "order")
        parts = {name: getattr(self, name) for name in names}
        moved = {
            name: part.to(device, copy=True) for name, part in parts.items() if part is not None
        }
        return replace(self, **moved)

    def cut(self, cut: Cut) -> "Quantized":
        """A shard's part. ValueError where it cannot be taken out."""
        if cut.dimension == 0:
            spans = [torch.arange(start, stop) for start, stop in cut.spans]
            return self.taken(torch.cat(spans))
        if len(cut.spans) != 1:
            raise ValueError("its inputs cannot be cut into several pieces")
        return self._columns(*cut.spans[0])

    def _columns(self, start: int, stop: int) -> "Quantized":
        if self.order is not None:
            raise ValueError(
                "its groups are not neighbours (desc_act, actorder), so its inputs cannot be cut:"
                " leave out --num-shard"
            )
        per_byte = self._per_byte
        if start % per_byte or stop % per_byte:
            raise ValueError(f"its inputs cannot be cut at {start} and {stop}, inside a byte")
        codes = self.codes[:, start // per_byte : stop // per_byte]
        if self.scales.shape[1] == 1:
            return replace(self, codes=codes)
        finer = self.regrouped(math.gcd(self.group, start, stop))
        groups = slice(start // finer.group, stop // finer.group)
        offsets = None if finer.offsets is None else finer.offsets[:, groups]
        return replace(finer, codes=codes, scales=finer.scales[:, groups], offsets=offsets)

    def regrouped(self, group: int) -> "Quantized":
        """With smaller groups, which divide the old ones: the same numbers."""
        times = self.group // group
        if times == 1:
            return self
        scales = self.scales.repeat_interleave(times, dim=1)
        offsets = None if self.offsets is None else self.offsets.repeat_interleave(times, dim=1)
        return replace(self, scales=scales, offsets=offsets)


Weight = torch.Tensor | Quantized
"""Of a linear layer [outputs, inputs]."""


def joined(parts: Sequence[Quantized]) -> Quantized | None:
    """One below the other, copied; None where their codes are of different kinds."""
    first = parts[0]
    if any(not alike(first, part) for part in parts[1:]):
        return None
    group = math.gcd(*(part.group for part in parts))
    parts = [part.regrouped(group) for part in parts]
    offsets = None
    if any(part.offsets is not None for part in parts):
        known = [torch.zeros_like(p.scales) if p.offsets is None else p.offsets for p in parts]
        offsets = torch.cat(known)
    return replace(
        first,
        codes=torch.cat([part.codes for part in parts]),
        scales=torch.cat([part.scales for part in parts]),
        offsets=offsets,
    )


def alike(one: Quantized, other: Quantized) -> bool:
    """Whether their codes stand for the same, but for scales and offsets, and in the same order."""
    if one.coding is not other.coding:
        return False
    pairs = ((one.levels, other.levels), (one.order, other.order))
    return all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)


def nibbles(codes: torch.Tensor) -> torch.Tensor:
    """Codes below 16, [outputs, inputs] with an even number of inputs, two to a byte (uint8)."""
    codes = codes.to(torch.uint8)
    return codes[:, 0::2] | codes[:, 1::2] << 4
