"""MXFP4 checkpoints (Open Compute Project 2023), as gpt-oss is published: experts alone.

``blocks`` [experts, outputs, groups, 16] of two codes in each byte, ``scales`` [experts, outputs,
groups], which are exponents of two. A group is 32 inputs.
"""

from collections.abc import Mapping
from typing import Any

import torch

from common.errors import StartupError
from worker.kernels.reference.quantized import E2M1_LEVELS, Coding, Quantized
from worker.quantization.format import Expected, Header, Tensors

_GROUP = 32
_BIAS = 127


class Mxfp4:
    """Of one checkpoint."""

    description = f"mxfp4 in groups of {_GROUP}"
    may_be_plain = False

    def __init__(self, entries: Mapping[str, Any]) -> None:
        """``entries``: its quantization_config, which says nothing that the tensors do not."""

    def expected(
        self, shape: tuple[int, int], found: Mapping[str, Header], matrices: int
    ) -> Mapping[str, Expected] | None:
        """As ``Format.expected``; the matrices are those of all experts."""
        if "blocks" not in found:
            return None
        outputs, inputs = shape
        if inputs % _GROUP:
            raise StartupError(f"its {inputs} inputs are no multiple of {_GROUP}, as mxfp4 needs")
        scales = matrices, outputs // matrices, inputs // _GROUP
        return {
            "blocks": Expected(("U8",), ((*scales, _GROUP // 2),)),
            "scales": Expected(("U8",), (scales,)),
        }

    def needless(self, name: str) -> bool:
        """As ``Format.needless``."""
        return False

    def read(self, shape: tuple[int, int], tensors: Tensors) -> Quantized:
        """As ``Format.read``. An exponent that stands for no number gives no finite scale."""
        outputs, inputs = shape
        codes = tensors["blocks"].reshape(outputs, inputs // 2)
        exponents = tensors["scales"].reshape(outputs, -1).to(torch.int32) - _BIAS
        scales = torch.ldexp(torch.ones(exponents.shape), exponents)
        return Quantized(Coding.NIBBLE, codes, scales, levels=torch.tensor(E2M1_LEVELS))
