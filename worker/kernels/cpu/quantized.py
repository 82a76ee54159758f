"""CPU kernel: linear layers in C whose weights stay codes of 8 or 4 bits, in bfloat16 or float32.

A decode step reads its weights from memory once: half or a quarter of the bytes is half or a
quarter of the time. Owns how codes lie in panels; ``native/codes.h`` says what it is.
"""

import ctypes
from collections.abc import Callable

import torch

from worker.kernels.cpu.library import ELEMENTS, Library
from worker.kernels.cpu.linear import PANEL, SIDE, Kind, LinearStructure, PanelLinear
from worker.kernels.cpu.pages import WEIGHTS
from worker.kernels.reference import linear as reference
from worker.kernels.reference.activation import silu_and_multiply
from worker.kernels.reference.linear import LinearOperation, PackLinear
from worker.kernels.reference.quantized import Coding, Quantized

_STEP = 32
"""Inputs, and those of a group, are a multiple of so many."""


class CodesStructure(ctypes.Structure):
    """``Codes`` of regions.h."""

    _fields_ = [
        *[(name, ctypes.c_void_p) for name in ("codes", "scales", "offsets", "levels")],
        *[(name, ctypes.c_int64) for name in ("coding", "group")],
    ]


class QuantizedLinear(PanelLinear):
    """Codes in panels that are read from front to back; sums in float32."""

    def __init__(
        self,
        library: Library,
        dtype: torch.dtype,
        weight: Quantized,
        bias: torch.Tensor | None,
        kind: Kind = Kind.NARROW,
    ) -> None:
        """A weight that ``fits``; ``dtype`` is x's, the bias's and, unless wide, the result's."""
        self.outputs, self.inputs = weight.shape
        self.kind = kind
        self.width = self.outputs // 2 if kind is Kind.GATED else self.outputs
        self.order = weight.order
        """As ``Quantized.order``."""
        rows = _rows(self.outputs, gated=kind is Kind.GATED)
        parts: list[torch.Tensor | None] = [
            WEIGHTS.copy(_panels_of_codes(weight, rows)),
            WEIGHTS.copy(_panels_of_groups(weight.scales, rows)),
        ]
        for part in (weight.offsets, weight.levels):
            if part is not None:
                part = WEIGHTS.copy(_panels_of_groups(part, rows) if part.dim() == 2 else part)
            parts.append(part)
        self._codes = CodesStructure(
            *[None if part is None else part.data_ptr() for part in parts],
            weight.coding,
            weight.group,
        )
        self._kept = parts, bias
        self.structure = LinearStructure(
            None,
            None if bias is None else bias.data_ptr(),
            self.outputs,
            self.inputs,
            kind,
            codes=ctypes.addressof(self._codes),
        )
        self._address = ctypes.addressof(self.structure)
        self._dtype = torch.float32 if kind is Kind.WIDE else dtype
        self._multiply: Callable[..., int] = getattr(library, f"linear_quantized_{ELEMENTS[dtype]}")

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, inputs] to a new tensor [T, width]."""
        rows = x.shape[0]
        y = torch.empty((rows, self.width), dtype=self._dtype)
        x = x.contiguous() if self.order is None else x.index_select(1, self.order)
        self._multiply(self._address, x.data_ptr(), y.data_ptr(), rows)
        return y


def fits(weight: Quantized, kind: Kind = Kind.NARROW) -> bool:
    """Whether there is a kernel for such a shape."""
    outputs, inputs = weight.shape
    gated = kind is Kind.GATED and outputs % PANEL != 0
    return inputs % _STEP == 0 and weight.group % _STEP == 0 and not gated


def pack_codes(
    library: Library,
    dtype: torch.dtype,
    weight: Quantized,
    bias: torch.Tensor | None,
    kind: Kind = Kind.NARROW,
) -> LinearOperation:
    """In C; the reference for the few shapes that it does not take."""
    if fits(weight, kind):
        return QuantizedLinear(library, dtype, weight, bias, kind)
    pack: PackLinear = reference.pack
    if kind is Kind.GATED:
        pack = reference.activated(pack, silu_and_multiply)
    elif kind is Kind.WIDE:
        pack = reference.widened(pack)
    return pack(weight, bias)


# --- panels -----------------------------------------------------------------------------------


def _rows(outputs: int, *, gated: bool) -> torch.Tensor:
    """The outputs of all panels, int64 [32 · panels]; where the last has fewer, ``outputs``.

    A panel of a gated layer has 16 gates and then their ups.
    """
    padded = -(-outputs // PANEL) * PANEL
    rows = torch.arange(padded).clamp_(max=outputs)
    if not gated:
        return rows
    return rows.view(2, -1, SIDE).transpose(0, 1).reshape(-1)


def _chosen(matrix: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """These rows; a row of zeros for one that is beyond the last."""
    if bool((rows == len(matrix)).any()):
        matrix = torch.cat((matrix, matrix.new_zeros((1, matrix.shape[1]))))
    return matrix[rows]


def _panels_of_groups(groups: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Scales or offsets [outputs, groups] to [panels, groups, 32], as a view."""
    chosen = _chosen(groups, rows)
    return chosen.view(-1, PANEL, chosen.shape[1]).transpose(1, 2)


def _panels_of_codes(weight: Quantized, rows: torch.Tensor) -> torch.Tensor:
    """As codes.h has them, as a view."""
    codes = _chosen(weight.codes.view(torch.uint8), rows)
    inputs = weight.shape[1]
    sides = (len(rows) // PANEL, 2, SIDE)
    if weight.coding is Coding.INTEGER:  # panel, pair, side, place, output
        return codes.view(*sides, inputs // 2, 2).permute(0, 3, 1, 4, 2)
    if weight.coding is Coding.FLOAT8:  # panel, pair, side, output, place
        return codes.view(*sides, inputs // 2, 2).permute(0, 3, 1, 2, 4)
    pairs = codes.view(*sides, inputs // 4, 2)  # of a unit's first and second pair
    left, right = pairs[:, 0], pairs[:, 1]  # panel, output, unit, pair; a byte has both places
    first = (left & 15) | (right & 15) << 4
    second = left >> 4 | (right >> 4) << 4
    places = torch.stack((first, second), dim=-1)  # panel, output, unit, pair, place
    return places.permute(0, 2, 1, 4, 3)  # panel, unit, output, place, pair
