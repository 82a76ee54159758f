"""compressed-tensors checkpoints: integers of 4 or 8 bits in words, int8, or float8.

Packed: ``weight_packed`` int32 [outputs, inputs · bits / 32], inputs side by side in a word from
its lowest bits on, 2^(bits - 1) added to each; ``weight_scale`` [outputs, groups];
``weight_zero_point`` int32 [outputs · bits / 32, groups], packed alike along the outputs, or int8
as the scales, signed: so are those of a whole matrix, and of all that early versions wrote;
``weight_g_idx`` [inputs] where groups are not neighbours; ``weight_shape``. Otherwise ``weight``
int8 or float8 [outputs, inputs], ``weight_scale`` and, of int8, ``weight_zero_point``.

What a matrix has is read from its tensors, so several schemes in one checkpoint, and what it lists
under ``ignore``, need no names here. Quantized activations are not followed: products are computed
with activations of 16 bits, which is more exact.
"""

from collections.abc import Mapping
from contextlib import suppress
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
        stored = {str(scheme.get("format") or entries.get("format")) for scheme in schemes}
        wrong = sorted(name for name in stored if name not in _FORMATS)
        sparsity = _object(entries, "sparsity_config").get("format", "dense")
        if sparsity not in ("dense", None):
            wrong.append(str(sparsity))
        if wrong:
            raise StartupError(
                f"the checkpoint is stored by compressed-tensors as {wrong[0]}, which is not"
                f" supported: use one of {', '.join(_FORMATS)}"
            )
        _check_transforms(_object(entries, "transform_config"))
        self._blocks = _blocks(schemes)
        """Outputs and inputs that share a scale, besides all inputs of one output."""
        bits = sorted({str(_weights(scheme).get("num_bits")) for scheme in schemes})
        kinds = " and ".join(sorted(stored))
        self.description = f"compressed-tensors ({kinds}), {' and '.join(bits)} bits"
        self.may_be_plain = not schemes
        if not schemes:
            self.description = "compressed-tensors, of keys and values alone"

    def expected(
        self, shape: tuple[int, int], found: Mapping[str, Header], matrices: int
    ) -> Mapping[str, Expected] | None:
        """As ``Format.expected``."""
        weight = found.get("weight")
        if "weight_packed" in found:
            return self._packed(shape, found)
        if weight is None or weight.dtype not in ("I8", FLOAT8):
            return None
        shapes = ((), (1,), (1, 1), shape[:1], *self._shapes(shape))
        wanted = {
            "weight": Expected((weight.dtype,), (shape,)),
            "weight_scale": Expected(FLOATS, shapes),
        }
        if "weight_zero_point" in found:
            wanted["weight_zero_point"] = Expected(("I8", *FLOATS, FLOAT8), shapes)
        return wanted

    def _packed(
        self, shape: tuple[int, int], found: Mapping[str, Header]
    ) -> Mapping[str, Expected]:
        outputs, inputs = shape
        bits = _bits(found["weight_packed"], inputs)
        grouped = tuple(found for found in self._shapes(shape) if found[0] == outputs)
        shapes = ((), (1,), (1, 1), *grouped)
        wanted = {
            "weight_packed": Expected(("I32",), ((outputs, _words(inputs, bits)),)),
            "weight_scale": Expected(FLOATS, shapes),
        }
        zeros = found.get("weight_zero_point")
        if zeros is not None and zeros.dtype == "I8":
            wanted["weight_zero_point"] = Expected(("I8",), shapes)
        elif zeros is not None:
            rows = _words(outputs, bits)
            wanted["weight_zero_point"] = Expected(("I32",), tuple((rows, n) for _, n in grouped))
        if "weight_g_idx" in found:
            wanted["weight_g_idx"] = Expected(("I32", "I64"), ((inputs,), (1,)))
        return wanted

    def needless(self, name: str) -> bool:
        """As ``Format.needless``."""
        return name in _NEEDLESS

    def read(self, shape: tuple[int, int], tensors: Tensors) -> Quantized:
        """As ``Format.read``."""
        if "weight_packed" in tensors:
            return self._read_packed(shape, tensors)
        scales, zeros = tensors["weight_scale"], tensors.get("weight_zero_point")
        is_shifted = zeros is not None and bool(zeros.float().any())
        if zeros is not None:
            _check_alike(scales.numel(), zeros.numel())
        rows, group = self._block_for(shape, scales)
        if tensors["weight"].dtype != torch.int8:
            if is_shifted:
                raise ValueError("its floats have zero points, which are not supported")
            return of_floats(shape, tensors, (rows, group))
        scales = by_rows(scales, shape[0], rows)
        offsets = None
        if zeros is not None and is_shifted:
            offsets = -by_rows(zeros, shape[0], rows) * scales
        return evened(Coding.INTEGER, tensors["weight"], scales, offsets, group=group)

    def _read_packed(self, shape: tuple[int, int], tensors: Tensors) -> Quantized:
        outputs, inputs = shape
        packed = tensors["weight_packed"]
        bits = _bits(Header(tuple(packed.shape), ""), inputs)
        _, group = self._block_for(shape, tensors["weight_scale"])
        scales = by_rows(tensors["weight_scale"], outputs)
        zeros = tensors.get("weight_zero_point")
        if zeros is not None and zeros.dtype == torch.int8:
            zeros = by_rows(zeros, outputs) + (1 << (bits - 1))
        elif zeros is not None:
            zeros = unpacked(zeros.T, bits).T[:outputs]
        if zeros is not None:
            _check_alike(scales.shape[1], zeros.shape[1])
        codes = unpacked(packed, bits)[:, :inputs]
        groups = tensors.get("weight_g_idx")
        if groups is not None and len(groups) != inputs:
            groups = None  # one number: none were written
        order = order_of(groups, inputs, group, scales.shape[1])
        if order is not None:
            codes = codes[:, order]
        return of_integers(codes, scales, zeros, bits=bits, group=group, order=order)

    def _shapes(self, shape: tuple[int, int]) -> dict[tuple[int, int], tuple[int, int]]:
        """Of scales, and the outputs and inputs that then share one."""
        outputs, inputs = shape
        found: dict[tuple[int, int], tuple[int, int]] = {}
        for rows, columns in ((1, inputs), *self._blocks):
            counts = even_groups(outputs, rows), even_groups(inputs, columns)
            found.setdefault(counts, (rows, columns))
        return found

    def _block_for(self, shape: tuple[int, int], scales: torch.Tensor) -> tuple[int, int]:
        """Outputs and inputs that share one of these scales, which are as expected."""
        if scales.dim() < 2 or scales.numel() == 1:
            return 1, shape[1]
        return self._shapes(shape)[scales.shape[0], scales.shape[1]]


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


def _check_alike(scales: int, zeros: int) -> None:
    if scales != zeros:
        raise ValueError(f"it has {scales} weight_scale for {zeros} weight_zero_point")


def _words(count: int, bits: int) -> int:
    return -(-count // (32 // bits))


def _schemes(entries: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    groups = entries.get("config_groups")
    if groups == {} and entries.get("kv_cache_scheme"):
        return []  # keys and values alone, whose scales are not a format's business
    if not isinstance(groups, Mapping) or not groups:
        raise StartupError("quantization_config: config_groups is missing or empty")
    schemes = list(groups.values())
    if not all(isinstance(scheme, Mapping) for scheme in schemes):
        raise StartupError("quantization_config: config_groups must hold objects")
    return schemes


def _weights(scheme: Mapping[str, Any]) -> Mapping[str, Any]:
    weights = scheme.get("weights")
    return weights if isinstance(weights, Mapping) else {}


def _blocks(schemes: list[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """Outputs and inputs that share a scale, by any scheme: groups of inputs, and blocks."""
    found = set()
    for weights in map(_weights, schemes):
        size, block = weights.get("group_size"), weights.get("block_structure")
        if isinstance(size, int) and size > 0:
            found.add((1, size))
        if block:
            found.add(_block(block))
    return sorted(found)


def _block(block: Any) -> tuple[int, int]:
    """Two sizes, which old checkpoints write as ``128x128``."""
    sizes = block.split("x") if isinstance(block, str) else block
    if isinstance(sizes, list) and len(sizes) == 2:
        with suppress(TypeError, ValueError):
            rows, columns = int(sizes[0]), int(sizes[1])
            if rows > 0 and columns > 0:
                return rows, columns
    raise StartupError(f"quantization_config: block_structure {block!r} is not two sizes")


def _object(entries: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An entry of quantization_config, empty without it. StartupError if it is no object."""
    value = entries.get(key) or {}
    if not isinstance(value, Mapping):
        raise StartupError(f"quantization_config: {key} must be an object, not {value!r}")
    return value


def _check_transforms(transforms: Mapping[str, Any]) -> None:
    """Rotations of weights are in the weights; StartupError for those of activations."""
    for scheme in _object(transforms, "config_groups").values():
        places = scheme.get("apply") if isinstance(scheme, Mapping) else None
        for place in places if isinstance(places, list) else [None]:
            location = str(place.get("location")) if isinstance(place, Mapping) else "unknown"
            if not location.startswith("weight_"):
                raise StartupError(
                    "quantization_config: transform_config rotates activations (location"
                    f" {location}), which is not supported: use a checkpoint without such rotations"
                )
