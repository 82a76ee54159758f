"""compressed-tensors checkpoints: integers of 4 or 8 bits in words, int8, or float8.

Packed: ``weight_packed`` int32 [outputs, inputs · bits / 32], inputs side by side in a word from
its lowest bits on, 2^(bits - 1) added to each; ``weight_scale`` [outputs, groups];
``weight_zero_point`` int32 [outputs · bits / 32, groups], packed alike along the outputs;
``weight_g_idx`` [inputs] where groups are not neighbours; ``weight_shape``. Otherwise ``weight``
int8 or float8 [outputs, inputs], ``weight_scale`` and, of int8, ``weight_zero_point``.

What a matrix has is read from its tensors, so several schemes in one checkpoint, and what it lists
under ``ignore``, need no names here. Quantized activations are not followed: products are computed
with activations of 16 bits, which is more exact.
"""

from collections.abc import Mapping
from typing import Any

import torch

from common.errors import StartupError
from worker.kernels.reference.quantized import Coding, Quantized
from worker.quantization.float8 import FLOAT8, of_floats
from worker.quantization.format import (
    FLOATS,
    Expected,
    Header,
    Tensors,
    even_groups,
    unpacked,
)
from worker.quantization.gptq import order_of
from worker.quantization.groups import by_rows, evened, of_integers

_FORMATS = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized")
_NEEDLESS = (
    *("weight_shape", "input_scale", "input_zero_point", "input_global_scale"),
    *("output_scale", "output_zero_point", "k_scale", "v_scale"),
)
_PACKED_BITS = (4, 8)


class CompressedTensors:
    """Of one checkpoint."""

    def __init__(self, entries: Mapping[str, Any]) -> None:
        """``entries``: its quantization_config. Raises StartupError."""
        schemes = _schemes(entries)
        stored = {scheme.get("format") or entries.get("format") for scheme in schemes}
        wrong = sorted(str(name) for name in stored if name not in _FORMATS)
        sparsity = (entries.get("sparsity_config") or {}).get("format", "dense")
        if sparsity not in ("dense", None):
            wrong.append(str(sparsity))
        if wrong:
            raise StartupError(
                f"the checkpoint is stored by compressed-tensors as {wrong[0]}, which is not"
                f" supported: use one of {', '.join(_FORMATS)}"
            )
        self._sizes = {size for scheme in schemes if (size := _group(scheme)) is not None}
        self._block = next((block for scheme in schemes if (block := _block(scheme))), None)
        bits = sorted({str(_weights(scheme).get("num_bits")) for scheme in schemes})
        kinds = " and ".join(sorted(map(str, stored)))
        self.description = f"compressed-tensors ({kinds}), {' and '.join(bits)} bits"

    def expected(
        self, shape: tuple[int, int], found: Mapping[str, Header]
    ) -> Mapping[str, Expected] | None:
        """As ``Format.expected``."""
        outputs, inputs = shape
        weight = found.get("weight")
        if "weight_packed" in found:
            return self._packed(shape, found)
        if weight is None or weight.dtype not in ("I8", FLOAT8):
            return None
        counts = {1, *(even_groups(inputs, size) for size in self._sizes)}
        shapes = [(), (1,), (outputs,), *((outputs, count) for count in counts), (1, 1)]
        if self._block is not None:
            shapes.append(
                (even_groups(outputs, self._block[0]), even_groups(inputs, self._block[1]))
            )
        wanted = {
            "weight": Expected((weight.dtype,), (shape,)),
            "weight_scale": Expected(FLOATS, tuple(shapes)),
        }
        if "weight_zero_point" in found:
            dtypes = ("I8", *FLOATS, FLOAT8)
            wanted["weight_zero_point"] = Expected(dtypes, tuple(shapes))
        return wanted

    def _packed(
        self, shape: tuple[int, int], found: Mapping[str, Header]
    ) -> Mapping[str, Expected]:
        outputs, inputs = shape
        bits = _bits(found["weight_packed"], inputs)
        counts = sorted({1, *(even_groups(inputs, size) for size in self._sizes)})
        wanted = {
            "weight_packed": Expected(("I32",), ((outputs, _words(inputs, bits)),)),
            "weight_scale": Expected(FLOATS, tuple((outputs, count) for count in counts)),
        }
        if "weight_zero_point" in found:
            rows = _words(outputs, bits)
            wanted["weight_zero_point"] = Expected(("I32",), tuple((rows, n) for n in counts))
        if "weight_g_idx" in found:
            wanted["weight_g_idx"] = Expected(("I32", "I64"), ((inputs,), (1,)))
        return wanted

    def needless(self, name: str) -> bool:
        """As ``Format.needless``."""
        return name in _NEEDLESS

    def read(self, shape: tuple[int, int], tensors: Tensors) -> Quantized:
        """As ``Format.read``."""
        outputs, inputs = shape
        if "weight_packed" in tensors:
            return self._read_packed(shape, tensors)
        scales = tensors["weight_scale"]
        if tensors["weight"].dtype != torch.int8:
            counted = scales.dim() == 2 and self._block is not None and scales.numel() > 1
            is_blocks = counted and scales.shape[0] != outputs
            return of_floats(shape, tensors, self._block if is_blocks else None)
        scales = by_rows(scales, outputs)
        zeros = tensors.get("weight_zero_point")
        offsets = None
        if zeros is not None and bool(zeros.float().any()):
            offsets = -by_rows(zeros, outputs) * scales
        group = self._group_for(inputs, scales.shape[1])
        return evened(Coding.INTEGER, tensors["weight"], scales, offsets, group=group)

    def _read_packed(self, shape: tuple[int, int], tensors: Tensors) -> Quantized:
        outputs, inputs = shape
        packed, scales = tensors["weight_packed"], tensors["weight_scale"]
        bits = _bits(Header(tuple(packed.shape), ""), inputs)
        group = self._group_for(inputs, scales.shape[1])
        zeros = tensors.get("weight_zero_point")
        if zeros is not None:
            zeros = unpacked(zeros.T, bits).T[:outputs]
        codes = unpacked(packed, bits)[:, :inputs]
        groups = tensors.get("weight_g_idx")
        if groups is not None and len(groups) != inputs:
            groups = None  # one number: none were written
        order = order_of(groups, inputs, group, scales.shape[1])
        if order is not None:
            codes = codes[:, order]
        return of_integers(codes, scales, zeros, bits=bits, group=group, order=order)

    def _group_for(self, inputs: int, count: int) -> int:
        """Inputs of a group, of so many groups."""
        sizes = (size for size in sorted(self._sizes) if even_groups(inputs, size) == count)
        return inputs if count == 1 else next(sizes)


def _bits(packed: Header, inputs: int) -> int:
    """Of each integer in a matrix of so many inputs; StartupError if none are supported."""
    columns = packed.shape[-1] if packed.shape else 0
    for bits in _PACKED_BITS:
        if _words(inputs, bits) == columns:
            return bits
    raise StartupError(
        f"the checkpoint has weight_packed of {columns} columns for {inputs} inputs, and only"
        f" {' and '.join(map(str, _PACKED_BITS))} bits are supported: use such a checkpoint"
    )


def _words(count: int, bits: int) -> int:
    return -(-count // (32 // bits))


def _schemes(entries: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    groups = entries.get("config_groups")
    if not isinstance(groups, Mapping) or not groups:
        raise StartupError("quantization_config: config_groups is missing or empty")
    schemes = list(groups.values())
    if not all(isinstance(scheme, Mapping) for scheme in schemes):
        raise StartupError("quantization_config: config_groups must hold objects")
    return schemes


def _weights(scheme: Mapping[str, Any]) -> Mapping[str, Any]:
    weights = scheme.get("weights")
    return weights if isinstance(weights, Mapping) else {}


def _group(scheme: Mapping[str, Any]) -> int | None:
    size = _weights(scheme).get("group_size")
    return size if isinstance(size, int) and size > 0 else None


def _block(scheme: Mapping[str, Any]) -> tuple[int, int] | None:
    block = _weights(scheme).get("block_structure")
    if not block:
        return None
    if not isinstance(block, list) or len(block) != 2 or not all(isinstance(n, int) for n in block):
        raise StartupError(f"quantization_config: block_structure {block!r} is not two sizes")
    return block[0], block[1]
