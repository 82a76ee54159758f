"""What a format of quantized checkpoints is: which tensors stand for a matrix, and what they say.

Runs in the worker, at load. A format knows neither files nor shards: it is told which tensors there
are beside each other, says what they must look like, and makes the whole matrix of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from common.errors import StartupError
from worker.kernels.reference.quantized import Quantized

Tensors = Mapping[str, torch.Tensor]
"""By what follows the matrix's own name, such as ``qweight``."""
FLOATS = ("F16", "BF16", "F32")
"""As safetensors spells types."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of a tensor before it is read."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Expected:
    """What a tensor must look like."""

    dtypes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    """Any of them."""


class Format(Protocol):
    """One way of storing matrices."""

    description: str
    """For people, such as ``gptq, 4 bits in groups of 128``."""
    may_be_plain: bool
    """Whether a checkpoint is right that has no codes at all."""

    def expected(
        self, shape: tuple[int, int], found: Mapping[str, Header], matrices: int
    ) -> Mapping[str, Expected] | None:
        """The tensors that stand for a matrix [outputs, inputs], of those ``found`` under its name.

        It may be several ``matrices``, of as many outputs, one below the other. None where it is
        stored as it is. Tensors of the result may be missing. StartupError
        for a matrix that the format cannot have.
        """

    def needless(self, name: str) -> bool:
        """Whether a tensor of that name is not needed beside those that are expected."""

    def read(self, shape: tuple[int, int], tensors: Tensors) -> Quantized:
        """The matrix. ValueError where the numbers make no sense."""


def whole_number(entries: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """An entry of quantization_config; StartupError if it is none."""
    value = entries.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise StartupError(f"quantization_config: {key} must be a whole number, not {value!r}")
    return value


def group_of(entries: Mapping[str, Any]) -> int | None:
    """``group_size``: inputs that share a scale; None: all of them."""
    size = whole_number(entries, "group_size", -1)
    if size == -1:
        return None
    if size < 1:
        raise StartupError(f"quantization_config: group_size must be positive or -1, not {size}")
    return size


def in_words(group: int | None) -> str:
    """What ``group_of`` found, for descriptions."""
    return f"in groups of {group}" if group else "by output"


def unpacked(words: torch.Tensor, bits: int) -> torch.Tensor:
    """int32 [rows, n] to uint8 [rows, n · 32 / bits]: what each holds, from its lowest bits."""
    shifts = torch.arange(0, 32, bits, dtype=torch.int32)
    each = (words[:, :, None] >> shifts) & ((1 << bits) - 1)
    return each.to(torch.uint8).flatten(1)


def even_groups(count: int, group: int) -> int:
    """Groups of ``count`` inputs, the last of which may be shorter."""
    return -(-count // group)
