"""GPTQ (Frantar et al. 2023) as AutoGPTQ and GPTQModel store it: 4 or 8 bits in groups of inputs.

``qweight`` int32 [inputs · bits / 32, outputs]: inputs side by side in a word, the first in its
lowest bits. ``qzeros`` int32 [groups, outputs · bits / 32]: zero points less 1, but for
checkpoints of the format ``gptq_v2``, which have them as they are. ``scales`` [groups, outputs].
``g_idx`` int32 [inputs]: each input's group, which is not its neighbours' where columns were
quantized in the order of their importance (``desc_act``).
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
    even_groups,
    group_of,
    in_words,
    unpacked,
    whole_number,
)
from worker.quantization.groups import of_integers

_BITS = (4, 8)
_FORMATS = ("gptq", "gptq_v2")


class Gptq:
    """Of one checkpoint."""

    may_be_plain = False

    def __init__(self, entries: Mapping[str, Any]) -> None:
        """``entries``: its quantization_config. Raises StartupError."""
        self._bits = whole_number(entries, "bits", 4)
        if self._bits not in _BITS:
            raise StartupError(
                f"the checkpoint is quantized with gptq to {self._bits} bits, and only"
                f" {' and '.join(map(str, _BITS))} are supported: use such a checkpoint"
            )
        stored = str(entries.get("checkpoint_format") or entries.get("format") or "gptq").lower()
        if stored not in _FORMATS:
            raise StartupError(
                f"the checkpoint is quantized with gptq in the layout of {stored}, which is not"
                " supported: use one in the layout of gptq or gptq_v2"
            )
        self._less = 0 if stored == "gptq_v2" else 1
        self._group = group_of(entries)
        self.description = f"gptq, {self._bits} bits {in_words(self._group)}"

    def expected(
        self, shape: tuple[int, int], found: Mapping[str, Header], matrices: int
    ) -> Mapping[str, Expected] | None:
        """As ``Format.expected``."""
        if "qweight" not in found:
            return None
        outputs, inputs = shape
        in_word = 32 // self._bits
        if inputs % in_word or outputs % in_word:
            raise StartupError(
                f"a matrix of {outputs} x {inputs} is not a multiple of {in_word}, as gptq asks for"
            )
        groups = even_groups(inputs, self._group or inputs)
        wanted = {
            "qweight": Expected(("I32",), ((inputs // in_word, outputs),)),
            "qzeros": Expected(("I32",), ((groups, outputs // in_word),)),
            "scales": Expected(FLOATS, ((groups, outputs),)),
        }
        if "g_idx" in found:
            wanted["g_idx"] = Expected(("I32", "I64"), ((inputs,),))
        return wanted

    def needless(self, name: str) -> bool:
        """As ``Format.needless``."""
        return False

    def read(self, shape: tuple[int, int], tensors: Tensors) -> Quantized:
        """As ``Format.read``."""
        codes = unpacked(tensors["qweight"].T, self._bits)
        zeros = unpacked(tensors["qzeros"], self._bits)
        most = (1 << self._bits) - 1
        zeros = ((zeros.to(torch.int16) + self._less) & most).T
        scales, group = tensors["scales"].T, self._group or shape[1]
        order = order_of(tensors.get("g_idx"), shape[1], group, scales.shape[1])
        if order is not None:
            codes = codes[:, order]
        return of_integers(codes, scales, zeros, bits=self._bits, group=group, order=order)


def order_of(
    groups: torch.Tensor | None, inputs: int, group: int, count: int
) -> torch.Tensor | None:
    """Inputs [inputs] by the group of each; None where they are so already.

    ValueError unless there are ``count`` groups of ``group`` inputs.
    """
    usual = torch.arange(inputs) // group
    if groups is None or torch.equal(groups.long(), usual):
        return None
    is_named = bool(((groups >= 0) & (groups < count)).all())
    counts = groups.long().bincount(minlength=count) if is_named else None
    if counts is None or not torch.equal(counts, usual.bincount(minlength=count)):
        raise ValueError(f"g_idx does not name {group} inputs of each group")
    return groups.long().argsort(stable=True)
