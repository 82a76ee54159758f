"""bitsandbytes checkpoints: 4 bits (NF4 or FP4, Dettmers et al. 2023) in blocks, or int8 by output.

4 bits: ``weight`` uint8 [outputs · inputs / 2, 1], row after row, the first of two codes in the
upper half of a byte; ``weight.quant_map`` float32 [16], the levels; ``weight.absmax``, a scale for
each block of codes, itself quantized where there are ``weight.nested_absmax`` and
``weight.nested_quant_map``; ``weight.quant_state.bitsandbytes__nf4`` (or ``fp4``), JSON in bytes.
8 bits: ``weight`` int8 [outputs, inputs] and ``SCB`` float32 [outputs], 127 times the scales;
``weight_format`` uint8 [], 0 where it lies row by row, as all that is still written does.
"""

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import torch

from common.errors import StartupError
from worker.kernels.reference.quantized import Coding, Quantized, nibbles
from worker.quantization.format import Expected, Header, Tensors

_LAYOUT = "weight_format"
_STATE = "weight.quant_state.bitsandbytes__"
_MOST = 127.0


class State(msgspec.Struct):
    """What a 4-bit matrix says of itself."""

    blocksize: int
    shape: tuple[int, int]
    nested_blocksize: int = 256
    nested_offset: float = 0.0


class Bitsandbytes:
    """Of one checkpoint."""

    may_be_plain = False

    def __init__(self, entries: Mapping[str, Any]) -> None:
        """``entries``: its quantization_config."""
        kind = str(entries.get("bnb_4bit_quant_type", "fp4"))
        self.description = f"bitsandbytes, {kind}" if entries.get("load_in_4bit") else (
            "bitsandbytes, int8"
        )  # fmt: skip
        if entries.get("bnb_4bit_quant_storage", "uint8") != "uint8":
            raise StartupError(
                "the checkpoint is quantized with bitsandbytes and stored as"
                f" {entries['bnb_4bit_quant_storage']}, which is not supported: use one with"
                " bnb_4bit_quant_storage uint8"
            )

    def expected(
        self, shape: tuple[int, int], found: Mapping[str, Header], matrices: int
    ) -> Mapping[str, Expected] | None:
        """As ``Format.expected``."""
        outputs, inputs = shape
        if "SCB" in found:
            wanted = {
                "weight": Expected(("I8",), (shape,)),
                "SCB": Expected(("F32", "F16"), ((outputs,),)),
            }
            if _LAYOUT in found:
                wanted[_LAYOUT] = Expected(("U8",), ((),))
            return wanted
        state = next((name for name in found if name.startswith(_STATE)), None)
        if state is None:
            return None
        count = outputs * inputs
        if inputs % 2:
            raise StartupError(f"a matrix of {inputs} inputs is not read from bitsandbytes' 4 bits")
        is_nested = "weight.nested_absmax" in found
        wanted = {
            "weight": Expected(("U8",), ((count // 2, 1),)),
            "weight.quant_map": Expected(("F32",), ((16,),)),
            "weight.absmax": Expected(("U8",) if is_nested else ("F32",), ()),
            state: Expected(("U8",), ()),
        }
        if is_nested:
            wanted["weight.nested_absmax"] = Expected(("F32",), ())
            wanted["weight.nested_quant_map"] = Expected(("F32",), ((256,),))
        return wanted

    def needless(self, name: str) -> bool:
        """As ``Format.needless``."""
        return False

    def read(self, shape: tuple[int, int], tensors: Tensors) -> Quantized:
        """As ``Format.read``."""
        outputs, inputs = shape
        if "SCB" in tensors:
            if int(tensors.get(_LAYOUT, torch.tensor(0))):
                raise ValueError(f"{_LAYOUT} says that it does not lie row by row")
            scales = tensors["SCB"].float()[:, None] / _MOST
            return Quantized(Coding.INTEGER, tensors["weight"], scales)
        state = _state(tensors, shape)
        scales = _scales(tensors, state, outputs * inputs)
        packed = tensors["weight"].view(outputs, inputs // 2)
        codes = torch.stack((packed >> 4, packed & 15), dim=-1).flatten(1)
        group = math.gcd(inputs, state.blocksize)
        first = torch.arange(0, outputs * inputs, group)
        scales = scales[first // state.blocksize].view(outputs, -1)
        levels = tensors["weight.quant_map"].float()
        return Quantized(Coding.NIBBLE, nibbles(codes), scales, levels=levels)


def _state(tensors: Tensors, shape: tuple[int, int]) -> State:
    name = next(name for name in tensors if name.startswith(_STATE))
    try:
        state = msgspec.json.decode(bytes(tensors[name].flatten().tolist()), type=State)
    except msgspec.DecodeError as error:
        raise ValueError(f"{name} is not as expected: {error}") from None
    if state.shape != shape or state.blocksize < 1 or state.nested_blocksize < 1:
        raise ValueError(f"{name} is of a matrix {list(state.shape)}, not {list(shape)}")
    return state


def _scales(tensors: Tensors, state: State, count: int) -> torch.Tensor:
    """float32, one for each block."""
    scales = tensors["weight.absmax"].flatten()
    if "weight.nested_absmax" in tensors:
        outer = tensors["weight.nested_absmax"].flatten()
        which = torch.arange(len(scales)) // state.nested_blocksize
        if len(outer) != -(-len(scales) // state.nested_blocksize):
            raise ValueError(f"weight.nested_absmax has {len(outer)} numbers")
        inner = tensors["weight.nested_quant_map"][scales.long()]
        scales = inner * outer[which] + state.nested_offset
    if len(scales) != -(-count // state.blocksize):
        raise ValueError(f"weight.absmax has {len(scales)} numbers for {count} codes")
    return scales.float()
