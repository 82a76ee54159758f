"""AWQ (Lin et al. 2024) as AutoAWQ stores it for matrix products: 4 bits in groups of inputs.

``qweight`` int32 [inputs, outputs / 8] and ``qzeros`` int32 [groups, outputs / 8]: eight outputs in
a word, in the order of ``_OUTPUTS`` from the lowest bits on. ``scales`` [groups, outputs].
"""

from collections.abc import Mapping
from typing import Any

import torch

from common.errors import StartupError
from worker.kernels.reference.quantized import Quantized
from worker.quantization.format import (
    FLOATS,
    Expected,
    Header,
    Tensors,
    group_of,
    in_words,
    unpacked,
    whole_number,
)
from worker.quantization.groups import of_integers

_BITS = 4
_IN_WORD = 8
_OUTPUTS = (0, 2, 4, 6, 1, 3, 5, 7)


class Awq:
    """Of one checkpoint."""

    may_be_plain = False

    def __init__(self, entries: Mapping[str, Any]) -> None:
        """``entries``: its quantization_config. Raises StartupError."""
        bits = whole_number(entries, "bits", _BITS)
        if bits != _BITS:
            raise StartupError(
                f"the checkpoint is quantized with awq to {bits} bits, and only {_BITS} are"
                " supported: use such a checkpoint"
            )
        version = str(entries.get("version") or entries.get("format") or "gemm").lower()
        if version != "gemm" or entries.get("zero_point") is False:
            layout = version if version != "gemm" else "no zero points"
            raise StartupError(
                f"the checkpoint is quantized with awq in the layout of {layout}, which is not"
                " supported: use one of version gemm, with zero points"
            )
        self._group = group_of(entries)
        self.description = f"awq, {bits} bits {in_words(self._group)}"

    def expected(
        self, shape: tuple[int, int], found: Mapping[str, Header], matrices: int
    ) -> Mapping[str, Expected] | None:
        """As ``Format.expected``."""
        if "qweight" not in found:
            return None
        outputs, inputs = shape
        group = self._group or inputs
        if outputs % _IN_WORD or inputs % group:
            raise StartupError(
                f"a matrix of {outputs} x {inputs} has no multiple of {_IN_WORD} outputs and of"
                f" {group} inputs, as awq asks for"
            )
        words, groups = outputs // _IN_WORD, inputs // group
        return {
            "qweight": Expected(("I32",), ((inputs, words),)),
            "qzeros": Expected(("I32",), ((groups, words),)),
            "scales": Expected(FLOATS, ((groups, outputs),)),
        }

    def needless(self, name: str) -> bool:
        """As ``Format.needless``."""
        return False

    def read(self, shape: tuple[int, int], tensors: Tensors) -> Quantized:
        """As ``Format.read``."""
        return of_integers(
            _outputs(tensors["qweight"]).T,
            tensors["scales"].T,
            _outputs(tensors["qzeros"]).T,
            bits=_BITS,
            group=self._group or shape[1],
        )


def _outputs(words: torch.Tensor) -> torch.Tensor:
    """int32 [rows, n] to uint8 [rows, 8 n], outputs in their order."""
    mixed = unpacked(words, _BITS).view(len(words), -1, _IN_WORD)
    return mixed[:, :, torch.tensor(_OUTPUTS).argsort()].flatten(1)
