"""FP8 checkpoints (e4m3): scales of the whole matrix, of each output, or of blocks of both.

``weight`` of float8 and, beside it, ``weight_scale`` (one number, or one for each output) or
``weight_scale_inv`` [outputs / block, inputs / block], as DeepSeek and Qwen publish them. Both
multiply. Where ``weight_block_size`` is not said, the shape of the scales tells what they are of;
blocks are then as large as transformers takes them to be. Scales of activations (``input_scale``,
``activation_scale_ub``) are not needed: products are computed with activations of 16 bits, which is
more exact than what they are for.
"""

from collections.abc import Container, Mapping
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

    may_be_plain = False

    def __init__(self, entries: Mapping[str, Any]) -> None:
        """``entries``: its quantization_config. Raises StartupError."""
        kind = entries.get("fmt", "e4m3")
        if kind != "e4m3":
            raise StartupError(
                f"the checkpoint is quantized to fp8 of the kind {kind}, and only e4m3 is"
                " supported: use such a checkpoint"
            )
        said = entries.get("weight_block_size")
        self._only_blocks = bool(said)
        self._block = _block_of(said) if said else _BLOCK
        scales = f"scales of {self._block[0]} x {self._block[1]}" if said else "scaled"
        self.description = f"fp8 (e4m3), {scales}"

    def expected(
        self, shape: tuple[int, int], found: Mapping[str, Header], matrices: int
    ) -> Mapping[str, Expected] | None:
        """As ``Format.expected``."""
        weight = found.get("weight")
        if weight is None or not weight.dtype.startswith("F8_"):
            return None
        shapes: tuple[tuple[int, ...], ...] = (self._blocks(shape),)
        if not self._only_blocks:
            outputs = shape[0]
            shapes = ((), (1,), (1, 1), (outputs,), (outputs, 1), *shapes)
        scales = Expected(FLOATS, shapes)
        return {"weight": Expected((FLOAT8,), (shape,)), _scales_among(found): scales}

    def needless(self, name: str) -> bool:
        """As ``Format.needless``."""
        return name in _NEEDLESS

    def read(self, shape: tuple[int, int], tensors: Tensors) -> Quantized:
        """As ``Format.read``."""
        blocks = tensors[_scales_among(tensors)].shape == self._blocks(shape)
        return of_floats(shape, tensors, self._block if blocks else None)

    def _blocks(self, shape: tuple[int, int]) -> tuple[int, int]:
        """How many there are along outputs and inputs."""
        return even_groups(shape[0], self._block[0]), even_groups(shape[1], self._block[1])


def of_floats(shape: tuple[int, int], tensors: Tensors, block: tuple[int, int] | None) -> Quantized:
    """Codes as they are, scales by output and group of inputs."""
    weight = tensors["weight"]
    if bool(weight.view(torch.uint8).bitwise_and(127).eq(127).any()):
        raise ValueError("the weight holds a NaN")
    outputs, inputs = shape
    scales = by_rows(tensors[_scales_among(tensors)], outputs, block[0] if block else 1)
    group = block[1] if block else inputs
    return evened(Coding.FLOAT8, weight.view(torch.uint8), scales, group=group)


def _scales_among(names: Container[str]) -> str:
    return "weight_scale_inv" if "weight_scale_inv" in names else "weight_scale"


def _block_of(block: Any) -> tuple[int, int]:
    sizes = block if isinstance(block, list) else []
    if len(sizes) != 2 or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise StartupError(
            f"quantization_config: weight_block_size must be two sizes such as {list(_BLOCK)}, not"
            f" {block!r}"
        )
    return sizes[0], sizes[1]
