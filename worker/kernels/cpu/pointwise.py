"""CPU kernels in C: norms and activations, in float32 and bfloat16; the sampler's summary."""

import ctypes
from dataclasses import dataclass
from enum import IntEnum
from functools import partial

import torch

from worker.kernels.cpu.library import ELEMENTS, Library
from worker.kernels.reference import norm as reference
from worker.kernels.reference.activation import ACTIVATIONS, GATED_ACTIVATIONS, Activation
from worker.kernels.reference.norm import NormOperations
from worker.kernels.reference.sampling import Summary

_LANES = 16


# --- norms ------------------------------------------------------------------------------------


class NormKind(IntEnum):
    """As regions.h numbers it."""

    NONE = 0
    RMS = 1
    LAYER = 2


class NormStructure(ctypes.Structure):
    """``Norm`` of regions.h; of zeros, it leaves rows as they are."""

    _fields_ = [
        *[(name, ctypes.c_void_p) for name in ("weight", "bias")],
        *[(name, ctypes.c_int64) for name in ("size", "kind")],
        ("epsilon", ctypes.c_float),
    ]


@dataclass(frozen=True, slots=True)
class NativeNorm(NormOperations):
    """A norm in C, and what it is made of."""

    structure: NormStructure
    kept: tuple[torch.Tensor, ...]
    """What that points to."""


def prepare_norm(
    library: Library, dtype: torch.dtype, weight: torch.Tensor, epsilon: float
) -> NormOperations:
    """As the reference, for weights of ``dtype`` or float32; both are kept in float32."""
    if len(weight) % _LANES:
        prepare = reference.prepare if weight.dtype == dtype else reference.prepare_wide
        return prepare(weight, epsilon)
    return _native(library, dtype, NormKind.RMS, epsilon, weight.float())


def prepare_layer_norm(
    library: Library,
    dtype: torch.dtype,
    weight: torch.Tensor,
    bias: torch.Tensor,
    epsilon: float,
) -> NormOperations:
    """As the reference; weight and bias are kept in float32."""
    if len(weight) % _LANES:
        return reference.prepare_layer(weight, bias, epsilon)
    return _native(library, dtype, NormKind.LAYER, epsilon, weight.float(), bias.float())


def _native(
    library: Library, dtype: torch.dtype, kind: NormKind, epsilon: float, *kept: torch.Tensor
) -> NativeNorm:
    """``kept``: weight, and bias if there is one."""
    function = getattr(library, f"norm_{ELEMENTS[dtype]}")
    size = len(kept[0])
    bias = kept[1].data_ptr() if len(kept) > 1 else None
    structure = NormStructure(kept[0].data_ptr(), bias, size, kind, epsilon)
    address = ctypes.addressof(structure)

    def norm(x: torch.Tensor) -> torch.Tensor:
        y = torch.empty(x.shape, dtype=dtype)
        x = x if x.stride(-1) == 1 and x.dim() == 2 else x.contiguous()
        stride = x.stride(0) if x.dim() == 2 else size
        function(address, x.data_ptr(), 0, y.data_ptr(), x.numel() // size, stride)
        return y

    def add_norm(x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        y = torch.empty(x.shape, dtype=dtype)
        function(address, x.data_ptr(), residual.data_ptr(), y.data_ptr(), len(x), size)
        return y

    return NativeNorm(norm, add_norm, structure, kept)


# --- activations ------------------------------------------------------------------------------


class Function(IntEnum):
    """As activations.h numbers them."""

    SILU = 1
    GELU = 2
    GELU_TANH = 3
    RELU = 4


FUNCTIONS = {
    "silu": Function.SILU,
    "swish": Function.SILU,
    "relu": Function.RELU,
    "gelu": Function.GELU,
    "gelu_new": Function.GELU_TANH,
    "gelu_fast": Function.GELU_TANH,
    "gelu_pytorch_tanh": Function.GELU_TANH,
}
"""By the names of ``ACTIVATIONS``."""


class ActivationStructure(ctypes.Structure):
    """``Activation`` of regions.h; of zeros, there is none."""

    _fields_ = [(name, ctypes.c_int64) for name in ("function", "gated")]


class NativeActivation:
    """As the reference's of that name."""

    def __init__(self, library: Library, dtype: torch.dtype, name: str, *, gated: bool) -> None:
        self.structure = ActivationStructure(FUNCTIONS[name], gated)
        self._address = ctypes.addressof(self.structure)
        self._parts = 2 if gated else 1
        self._activate = getattr(library, f"activate_{ELEMENTS[dtype]}")
        self._otherwise = (GATED_ACTIVATIONS if gated else ACTIVATIONS)[name]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, width], or twice as wide where it is gated, to a new tensor [T, width]."""
        rows, width = x.shape[0], x.shape[1] // self._parts
        if width % _LANES:
            return self._otherwise(x)
        y = x.new_empty((rows, width))
        self._activate(self._address, x.data_ptr(), y.data_ptr(), rows, width)
        return y


def activations(library: Library, dtype: torch.dtype) -> dict[str, Activation]:
    """As the reference's, by the same names."""
    return {name: NativeActivation(library, dtype, name, gated=False) for name in ACTIVATIONS}


def gated_activations(library: Library, dtype: torch.dtype) -> dict[str, Activation]:
    """As the reference's, by the same names; those that are not in C are the reference's."""
    native = {
        name: NativeActivation(library, dtype, name, gated=True)
        for name in GATED_ACTIVATIONS
        if name in FUNCTIONS
    }
    return {**GATED_ACTIVATIONS, **native}


# --- sampling ---------------------------------------------------------------------------------


def summarize(library: Library) -> Summary:
    """As the reference."""
    return partial(_summarize, library)


def _summarize(library: Library, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    rows, size = logits.shape
    largest = torch.empty(rows, dtype=torch.int64)
    log_sums = torch.empty(rows, dtype=torch.float32)
    addresses = logits.data_ptr(), largest.data_ptr(), log_sums.data_ptr()
    library.summarize(*addresses, rows, size, logits.stride(0))
    return largest, log_sums
