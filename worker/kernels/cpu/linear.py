"""CPU kernels: linear layers with weights repacked once, at load.

Three forms, each tried on a small matrix before it is chosen, because which exist depends on the
processor, the compiler and the build of torch:

* our own (``native/linear.h``), for float32, and for bfloat16 where the processor multiplies it;
* float16 storage, float32 arithmetic (FBGEMM), for float32 models;
* oneDNN's blocked layout, for float32, and for bfloat16 and float16 where the processor computes
  them.

A decode step reads its weights from memory once, so half the bytes is half the time: those of a
float32 model are kept in float16 where that holds them, as it does most checkpoints in bfloat16.

PERF: AMD Zen 3, AVX2, one thread, [3072, 576] float32, microseconds at 1 / 8 / 32 / 128 rows:
F.linear 512 / 1182 / 2088 / 6005, oneDNN 418 / 851 / 2020 / 6344, FBGEMM 205 / 472 / 1289 / 5199.
Our own is about as fast as FBGEMM there, 1.1 to 1.3 times with [4096, 11008], and takes part
in one call of C for all layers.
"""

import ctypes
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import copy
from enum import IntEnum
from functools import partial
from typing import Any

import torch

from worker.kernels.cpu.library import ELEMENTS, Library
from worker.kernels.cpu.pages import WEIGHTS
from worker.kernels.reference import linear as reference
from worker.kernels.reference.activation import silu_and_multiply
from worker.kernels.reference.linear import (
    ActivatedLinear,
    LinearOperation,
    PackLinear,
    PackPlain,
)

_HALF_TOLERANCE = 2.0**-20
"""Rounding to float16 may change a row of weights by so much of its norm: less than what summing a
few hundred products in float32 does."""
_SMALL = 1 << 18
"""PERF: weights of fewer elements are faster through F.linear: a call of oneDNN costs 20 µs."""


_TILE = 32
"""Our own form takes inputs of a multiple of so many."""
PANEL = 32
"""Outputs whose weights are read together."""
SIDE = 16
"""Gates of a panel of a gated layer; as many ups follow them."""


def choose_pack(dtype: torch.dtype) -> PackPlain:
    """The fastest of torch's forms that works here for weights of this dtype.

    The threads that torch uses now should be those of later: one form cannot use several.
    """
    half = dtype == torch.float32 and _works(pack_half, dtype)
    onednn = _works(pack_onednn, dtype)

    def pack(weight: torch.Tensor, bias: torch.Tensor | None) -> LinearOperation:
        if half and fits_half(weight):
            return pack_half(weight, bias)
        if onednn and weight.numel() >= _SMALL:
            return pack_onednn(weight, bias)
        return reference.pack(weight, bias)

    return pack


def native_works(library: Library, dtype: torch.dtype) -> bool:
    """Whether our own form is to be used for weights of this dtype."""
    if ELEMENTS.get(dtype) not in library.variant.elements:
        return False
    return _works(partial(pack_native, library, dtype), dtype)


class Kind(IntEnum):
    """What becomes of a native layer's sums, as regions.h numbers it."""

    NARROW = 0
    """The dtype of what it is given."""
    WIDE = 1
    """float32, as they are."""
    GATED = 2
    """``silu(gate) * up``, in the dtype of what it is given: half as many, gates first."""


class Form(IntEnum):
    """What native weights are kept in, as regions.h numbers it."""

    PAIRS = 0
    """bfloat16, two inputs side by side."""
    HALVES = 1
    """float16, beside float32."""
    SINGLES = 2
    """float32."""


_STORED = {
    Form.PAIRS: torch.bfloat16,
    Form.HALVES: torch.float16,
    Form.SINGLES: torch.float32,
}


class LinearStructure(ctypes.Structure):
    """``Linear`` of regions.h."""

    _fields_ = [
        *[(name, ctypes.c_void_p) for name in ("weights", "bias")],
        *[(name, ctypes.c_int64) for name in ("outputs", "inputs", "kind", "form")],
        ("codes", ctypes.c_void_p),
    ]


class PanelLinear(ABC):
    """What linear layers in panels have in common: a gated one can be had without its gates."""

    kind: Kind
    outputs: int
    width: int
    """Of a row of results."""
    structure: LinearStructure
    _address: int
    _dtype: torch.dtype
    _kept: tuple[Any, torch.Tensor | None]
    """What the structure points to: weights, bias."""

    @abstractmethod
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, inputs] to a new tensor [T, width]."""

    def opened(self) -> ActivatedLinear | None:
        """As ``Closed.opened``, over the same weights; sums are in float32."""
        if self.kind is not Kind.GATED:
            return None
        wide, dtype = copy(self), self._dtype
        wide.kind, wide.width, wide._dtype = Kind.WIDE, self.outputs, torch.float32
        wide.structure = LinearStructure.from_buffer_copy(self.structure)
        wide.structure.kind = Kind.WIDE
        wide._address = ctypes.addressof(wide.structure)
        weights, bias = self._kept
        if bias is not None:  # in the order of the panels: 16 gates, their ups, and so on
            bias = bias.view(2, -1, SIDE).transpose(0, 1).flatten()
            wide.structure.bias = bias.data_ptr()
        wide._kept = weights, bias

        def sums(x: torch.Tensor) -> torch.Tensor:
            return wide(x).view(len(x), -1, 2, SIDE).transpose(1, 2).flatten(1)

        return ActivatedLinear(sums, lambda gate_and_up: silu_and_multiply(gate_and_up).to(dtype))


class NativeLinear(PanelLinear):
    """Weights in panels that are read from front to back, sums in float32."""

    def __init__(
        self,
        library: Library,
        dtype: torch.dtype,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        kind: Kind = Kind.NARROW,
    ) -> None:
        """A weight [outputs, inputs]: inputs of a multiple of 32; gated, outputs of one too.

        ``dtype`` is the weight's, x's, the bias's and, unless wide, the result's.
        """
        self.outputs, self.inputs = weight.shape
        self.kind = kind
        self.width = self.outputs // 2 if kind is Kind.GATED else self.outputs
        form = Form.PAIRS if dtype == torch.bfloat16 else _form_of(weight)
        rows = weight.to(_STORED[form]).contiguous()  # alive until they are packed
        padded = -(-self.outputs // PANEL) * PANEL
        self._kept = WEIGHTS.empty((padded, self.inputs), rows.dtype), bias
        side_by_side = 2 if form is Form.PAIRS else 1
        library.linear_pack(
            rows.data_ptr(),
            self._kept[0].data_ptr(),
            self.outputs,
            self.inputs // side_by_side,
            side_by_side * rows.element_size(),
            kind is Kind.GATED,
        )
        self.structure = LinearStructure(
            self._kept[0].data_ptr(),
            None if bias is None else bias.data_ptr(),
            self.outputs,
            self.inputs,
            kind,
            form,
        )
        self._address = ctypes.addressof(self.structure)
        self._dtype = torch.float32 if kind is Kind.WIDE else dtype
        element = ELEMENTS[dtype]
        self._multiply: Callable[..., int] = getattr(library, f"linear_{element}")
        self._scratch_elements: Callable[..., int] = getattr(
            library, f"linear_scratch_elements_{element}"
        )

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, inputs] to a new tensor [T, width]."""
        rows = x.shape[0]  # PERF: len(x) takes 1 µs more
        y = torch.empty((rows, self.width), dtype=self._dtype)
        x = x.contiguous()
        scratch = torch.empty(self._scratch_elements(rows, self.inputs), dtype=x.dtype)
        self._multiply(self._address, x.data_ptr(), y.data_ptr(), scratch.data_ptr(), rows)
        return y


def _form_of(weight: torch.Tensor) -> Form:
    return Form.HALVES if fits_half(weight) else Form.SINGLES


def pack_native(
    library: Library,
    dtype: torch.dtype,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    kind: Kind = Kind.NARROW,
) -> LinearOperation:
    """Our own form; torch's, of a copy, for the few shapes that it does not take."""
    if weight.shape[1] % _TILE == 0 and (kind is not Kind.GATED or len(weight) % _TILE == 0):
        return NativeLinear(library, dtype, weight, bias, kind)
    pack: PackLinear = reference.pack
    if kind is Kind.GATED:
        pack = reference.activated(pack, silu_and_multiply)
    elif kind is Kind.WIDE:
        pack = reference.widened(pack)
    return pack(weight.clone(), bias)


def pack_half(weight: torch.Tensor, bias: torch.Tensor | None) -> LinearOperation:
    """Weights in float16, input, sums and output in float32."""
    if torch.get_num_threads() == 1 and hasattr(torch, "fbgemm_linear_fp16_weight_fp32_activation"):
        return _pack_half_one_thread(weight, bias)
    operator = torch.ops.quantized.linear_dynamic_fp16.default
    packed = torch.ops.quantized.linear_prepack_fp16(weight, bias)

    def apply(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = operator(x, packed)
        return result

    return apply


def _pack_half_one_thread(weight: torch.Tensor, bias: torch.Tensor | None) -> LinearOperation:
    """PERF: the older operator knows one thread only, but a call costs 16 µs less.

    It is deprecated; ``pack_half`` goes on without it when it is gone.
    """
    operator = torch.fbgemm_linear_fp16_weight_fp32_activation
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        packed = torch.fbgemm_pack_gemm_matrix_fp16(weight)
        operator(weight.new_zeros((1, weight.shape[1])), packed, bias)  # warns once per process

    def apply(x: torch.Tensor) -> torch.Tensor:
        return operator(x, packed, bias)

    return apply


def fits_half(weight: torch.Tensor) -> bool:
    """Does every row of a float32 weight survive float16? Overflow shows as an infinite error."""
    for rows in torch.split(weight, 4096):
        error = rows.half().float().sub_(rows).norm(dim=1)
        if not bool((error <= _HALF_TOLERANCE * rows.norm(dim=1)).all()):
            return False
    return True


def pack_onednn(weight: torch.Tensor, bias: torch.Tensor | None) -> LinearOperation:
    """Weights in oneDNN's blocked layout, dtypes as they are."""
    operator = torch.ops.mkldnn._linear_pointwise.default
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)

    def apply(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = operator(x, packed, bias, "none", [], "")
        return result

    return apply


def _works(pack: PackPlain, dtype: torch.dtype) -> bool:
    """Try a form on a small matrix: an operator may be missing, refuse this processor, or lie."""
    weight = torch.arange(32 * 32, dtype=torch.float32).view(32, 32).sin_().bfloat16()
    weight = weight.to(dtype)
    bias = weight[0].clone()
    x = weight[1:4].clone()
    try:
        got = pack(weight, bias)(x)
    except (AttributeError, RuntimeError):
        return False
    expected = x.float() @ weight.float().T + bias.float()
    tolerance = 1e-4 if dtype == torch.float32 else 0.1
    return bool((got.float() - expected).abs().max() < tolerance)
