"""CPU kernel: a stack of decoder layers in one call of C, in bfloat16.

The same kernels as one by one, without what Python and the threads cost between them. For layers of
one kind: attention and a gated SiLU block, each after an RMS norm, each added to the residual.
"""

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from worker.inputs import StepInputs
from worker.kernels.cpu.attention import StepPlan
from worker.kernels.cpu.library import Library
from worker.kernels.cpu.linear import Kind, LinearStructure, NativeLinear
from worker.kernels.cpu.pointwise import NativeNorm
from worker.kernels.reference.attention import Angles
from worker.kernels.reference.norm import NormOperations
from worker.kernels.stack import LayerParts, StackOperation, StackStep

_CHUNK = 512
"""Rows at a time and thread, as layers.c has it."""
_TILE = 16


_VARYING = ("step", "cosines", "sines", "angle_stride")
"""From step to step; the others stay."""


class _Layer(ctypes.Structure):
    """``Layer`` of layers.c."""

    _fields_ = [
        *[(name, ctypes.c_void_p) for name in ("input_norm", "inner_norm")],
        *[(name, LinearStructure) for name in ("qkv", "output", "gate_up", "down")],
        *[(name, ctypes.c_int64) for name in ("step", "keys", "values", "cosines", "sines")],
        ("angle_stride", ctypes.c_int64),
        ("epsilon", ctypes.c_float),
    ]


_BUFFERS = ("hidden", "qkv", "attended", "gated", "output", "added")


class _Workspace(ctypes.Structure):
    """``Workspace`` of layers.c."""

    _fields_ = [*[(name, ctypes.c_void_p) for name in _BUFFERS], ("threads", ctypes.c_int64)]


class _NativeParts(NamedTuple):
    """``LayerParts`` that are all ours."""

    input_norm: NativeNorm
    inner_norm: NativeNorm
    qkv: NativeLinear
    output: NativeLinear
    gate_up: NativeLinear
    down: NativeLinear


class NativeStack:
    """All layers of a model, and the norm behind them."""

    def __init__(self, library: Library, parts: Sequence[_NativeParts], norm: NativeNorm) -> None:
        self._run = library.decoder_layers
        self._parts = list(parts)
        self._norm = norm
        self._layers = (_Layer * len(parts))(*[_layer(part) for part in parts])
        words = ctypes.sizeof(_Layer) // 8
        self._words = np.frombuffer(memoryview(self._layers).cast("B"), dtype=np.int64).reshape(
            len(parts), words
        )
        self._varying = [getattr(_Layer, name).offset // 8 for name in _VARYING]
        self._caches: Sequence[torch.Tensor] = ()
        self._capacity = 0
        self._space = _Workspace()
        self._buffers: list[torch.Tensor] = []

    def __call__(self, residual: torch.Tensor, inputs: StepInputs, step: StackStep) -> torch.Tensor:
        """As ``StackOperation.__call__``."""
        tokens, size = residual.shape
        self._reserve(tokens, size)
        if step.caches is not self._caches:
            self._enter(step.caches)
        addresses = np.array([_addresses(*kind) for kind in step.kinds], dtype=np.int64)
        self._words[:, self._varying] = addresses[list(step.kind_of)]
        wanted = inputs.logit_rows
        y = residual.new_empty((len(wanted), size))
        self._run(
            ctypes.addressof(self._layers),
            len(self._layers),
            residual.data_ptr(),
            tokens,
            size,
            wanted.data_ptr(),
            len(wanted),
            self._norm.weight.data_ptr(),
            ctypes.addressof(self._space),
            y.data_ptr(),
        )
        return y

    def _enter(self, caches: Sequence[torch.Tensor]) -> None:
        for layer, cache in zip(self._layers, caches, strict=True):
            layer.keys = cache.data_ptr()
            layer.values = layer.keys + cache.stride(0) * cache.element_size()
        self._caches = caches

    def _reserve(self, tokens: int, size: int) -> None:
        """Room for so many tokens; it is kept."""
        if tokens <= self._capacity:
            return
        rows = -(-tokens // _TILE) * _TILE
        threads = torch.get_num_threads()
        part, chunk = self._parts[0], min(rows, threads * _CHUNK)
        queries, width = part.output.inputs, part.down.inputs
        elements = (
            chunk * size,
            rows * max(part.qkv.outputs, queries + size),
            rows * queries,
            chunk * width,
            chunk * size,
            rows * size,
        )
        self._buffers = [torch.empty(count, dtype=torch.bfloat16) for count in elements]
        for name, buffer in zip(_BUFFERS, self._buffers, strict=True):
            setattr(self._space, name, buffer.data_ptr())
        self._space.threads = threads
        self._capacity = rows


def fuse_layers(
    library: Library, parts: Sequence[LayerParts | None], norm: NormOperations
) -> StackOperation | None:
    """All layers as one operation, or None if one of them is not of the kind that this knows."""
    found = [_native(part) for part in parts]
    layers = [layer for layer in found if layer is not None]
    if not isinstance(norm, NativeNorm) or not layers or len(layers) < len(found):
        return None
    norms = [one for layer in layers for one in (layer.input_norm, layer.inner_norm)]
    if any(one.epsilon != norm.epsilon for one in norms):
        return None
    return NativeStack(library, layers, norm)


def _native(part: LayerParts | None) -> _NativeParts | None:
    """The same, if all of it is ours."""
    if (
        part is not None
        and isinstance(part.input_norm, NativeNorm)
        and isinstance(part.inner_norm, NativeNorm)
        and isinstance(part.qkv, NativeLinear)
        and isinstance(part.output, NativeLinear)
        and isinstance(part.gate_up, NativeLinear)
        and part.gate_up.kind is Kind.GATED
        and isinstance(part.down, NativeLinear)
    ):
        return _NativeParts(
            part.input_norm, part.inner_norm, part.qkv, part.output, part.gate_up, part.down
        )
    return None


def _layer(part: _NativeParts) -> _Layer:
    return _Layer(
        part.input_norm.weight.data_ptr(),
        part.inner_norm.weight.data_ptr(),
        part.qkv.structure,
        part.output.structure,
        part.gate_up.structure,
        part.down.structure,
        epsilon=part.input_norm.epsilon,
    )


def _addresses(plan: StepPlan, angles: Angles | None) -> tuple[int, int, int, int]:
    if angles is None:
        return plan.address, 0, 0, 0
    plan.step.channels = angles[0].shape[-1]
    return plan.address, angles[0].data_ptr(), angles[1].data_ptr(), angles[0].stride(0)
