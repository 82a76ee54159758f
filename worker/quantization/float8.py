"""FP8 checkpoints (e4m3): scales of the whole matrix, of each output, or of blocks of both.

``weight`` of float8 and, beside it, ``weight_scale`` (one number, or one for each output) or
``weight_scale_inv`` [outputs / block, inputs / block], as DeepSeek and Qwen publish them. Both
multiply. Scales of activations (``input_scale``, ``activation_scale_ub``) are not needed: products
are computed with activations of 16 bits, which is more exact than what they are for.
"""

from collections.abc import Mapping
from typing import Any

import torch

from common.errors import StartupError
from worker.kernels.reference.quantized import Coding, Quantized
from worker.quantization.format import FLOATS, Expected, Header, Tensors, even_groups
from worker.quantization.groups import by_rows, evened

FLOAT8 = "F8_E4M3"
_NEEDLESS = ("input_scale", "activation_scale", "input_scale_ub", "k_scale", "v_scale")
_BLOCK = (128, 128)


class Float8:
    """Of one checkpoint."""

    def __init__(self, entries: Mapping[str, Any]) -> None:
        """``entries``: its quantization_config. Raises StartupError."""
        kind = entries.get("fmt", "e4m3")
        if kind != "e4m3":
            raise StartupError(
                f"the checkpoint is quantized to fp8 of the kind {kind}, and only e4m3 is"
                " supported: use such a checkpoint"
            )
        block = entries.get("weight_block_size")
        self._block = _block_of(block) if block else None
        scales = f"scales of {self._block[0]} x {self._block[1]}" if self._block else "scaled"
        self.description = f"fp8 (e4m3), {scales}"

    def expected(
        self, shape: tuple[int, int], found: Mapping[str, Header]
    ) -> Mapping[str, Expected] | None:
        """As ``Format.expected``."""
        weight = found.get("weight")
        if weight is None or not weight.dtype.startswith("F8_"):
            return None
        return {"weight": Expected((FLOAT8,), (shape,))} | scales_of(shape, found, self._block)

    def needless(self, name: str) -> bool:
        """As ``Format.needless``."""
        return name in _NEEDLESS

    def read(self, shape: tuple[int, int], tensors: Tensors) -> Quantized:
        """As ``Format.read``."""
        return of_floats(shape, tensors, self._block)


def scales_of(
    shape: tuple[int, int], found: Mapping[str, Header], block: tuple[int, int] | None
) -> dict[str, Expected]:
    """What the scales of a float8 or int8 matrix must look like."""
    outputs, inputs = shape
    shapes: tuple[tuple[int, ...], ...] = ((), (1,), (1, 1), (outputs,), (outputs, 1))
    if block is not None:
        shapes = ((even_groups(outputs, block[0]), even_groups(inputs, block[1])),)
    name = "weight_scale_inv" if "weight_scale_inv" in found else "weight_scale"
    return {name: Expected(FLOATS, shapes)}


def of_floats(shape: tuple[int, int], tensors: Tensors, block: tuple[int, int] | None) -> Quantized:
    """Codes as they are, scales by output and group of inputs."""
    weight = tensors["weight"]
    if bool(weight.view(torch.uint8).bitwise_and(127).eq(127).any()):
        raise ValueError("the weight holds a NaN")
    name = "weight_scale_inv" if "weight_scale_inv" in tensors else "weight_scale"
    outputs, inputs = shape
    scales = by_rows(tensors[name], outputs, block[0] if block else 1)
    group = block[1] if block else inputs
    return evened(Coding.FLOAT8, weight.view(torch.uint8), scales, group=group)


def _block_of(block: Any) -> tuple[int, int]:
    sizes = block if isinstance(block, list) else []
    if len(sizes) != 2 or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise StartupError(
            f"quantization_config: weight_block_size must be two sizes such as {list(_BLOCK)}, not"
            f" {block!r}"
        )
    return sizes[0], sizes[1]
