"""CPU kernel: a stack of decoder layers in one call of C.

The same kernels as one by one, without what Python and the threads cost between them. From the
declarations of ``kernels/stack.py`` to the structures that layers.h reads; a stack with a part that
is not in C (a mixture of experts, sizes that our kernels do not take) is left as it is.
"""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from worker.inputs import StepInputs
from worker.kernels.attention import AttentionKernel
from worker.kernels.cpu.attention import NativeAttention, StepPlan
from worker.kernels.cpu.library import ELEMENTS, Library
from worker.kernels.cpu.linear import Kind, LinearStructure, NativeLinear
from worker.kernels.cpu.pointwise import (
    ActivationStructure,
    NativeActivation,
    NativeNorm,
    NormStructure,
)
from worker.kernels.cpu.quantized import QuantizedLinear
from worker.kernels.reference.attention import Angles
from worker.kernels.reference.linear import ActivatedLinear, LinearOperation
from worker.kernels.reference.norm import NormOperations
from worker.kernels.stack import Block, LayerParts, StackOperation, StackStep

_CHUNK = 512
"""Rows at a time and thread, as layers.h has it."""
_TILE = 16


class _Block(ctypes.Structure):
    """``Block`` of layers.h."""

    _fields_ = [
        *[(name, NormStructure) for name in ("before", "after")],
        *[(name, LinearStructure) for name in ("first", "second")],
    ]


class _Layer(ctypes.Structure):
    """``Layer`` of layers.h."""

    _fields_ = [
        *[(name, _Block) for name in ("attention", "feed_forward")],
        *[(name, NormStructure) for name in ("queries", "keys")],
        ("activation", ActivationStructure),
        *[(name, ctypes.c_int64) for name in ("parallel", "kind", "cached_keys", "cached_values")],
    ]


_BUFFERS = ("hidden", "qkv", "attended", "wide", "inner", "output", "added")


class _Workspace(ctypes.Structure):
    """``Workspace`` of layers.h."""

    _fields_ = [
        *[(name, ctypes.c_void_p) for name in _BUFFERS],
        *[(name, ctypes.c_int64) for name in ("threads", "width")],
    ]


class NativeStack:
    """All layers of a model, and the norm behind them."""

    def __init__(
        self,
        library: Library,
        dtype: torch.dtype,
        parts: Sequence[LayerParts],
        layers: Sequence[_Layer],
        norm: NativeNorm,
    ) -> None:
        """``layers`` are what has been made of ``parts``."""
        self._run: Callable[..., int] = getattr(library, f"decoder_layers_{ELEMENTS[dtype]}")
        self._dtype = dtype
        self._kept = list(parts), norm
        self._layers = (_Layer * len(layers))(*layers)
        self._caches: Sequence[torch.Tensor] = ()
        self._capacity = 0
        self._space = _Workspace(width=max(layer.feed_forward.second.inputs for layer in layers))
        structures = (self._layers, norm.structure, self._space)
        self._addresses = [ctypes.addressof(structure) for structure in structures]
        self._buffers: list[torch.Tensor] = []

    def __call__(self, residual: torch.Tensor, inputs: StepInputs, step: StackStep) -> torch.Tensor:
        """As ``StackOperation.__call__``."""
        tokens, size = residual.shape
        self._reserve(tokens, size)
        if step.caches is not self._caches:
            self._enter(step)
        kinds = np.array([_kind(*kind) for kind in step.kinds], dtype=np.int64)
        wanted = inputs.logit_rows
        rows = wanted.shape[0]
        y = residual.new_empty((rows, size))
        layers, norm, space = self._addresses
        self._run(
            layers,
            len(self._layers),
            kinds.ctypes.data,
            residual.data_ptr(),
            tokens,
            size,
            wanted.data_ptr(),
            rows,
            norm,
            space,
            y.data_ptr(),
        )
        return y

    def _enter(self, step: StackStep) -> None:
        for layer, kind, cache in zip(self._layers, step.kind_of, step.caches, strict=True):
            layer.kind = kind
            layer.cached_keys = cache.data_ptr()
            layer.cached_values = layer.cached_keys + cache.stride(0) * cache.element_size()
        self._caches = step.caches

    def _reserve(self, tokens: int, size: int) -> None:
        """Room for so many tokens; it is kept."""
        if tokens <= self._capacity:
            return
        rows = -(-tokens // _TILE) * _TILE
        threads = torch.get_num_threads()
        chunk, width = min(rows, threads * _CHUNK), self._space.width
        queries = max(layer.attention.second.inputs for layer in self._layers)
        projected = max(layer.attention.first.outputs for layer in self._layers)
        gated = any(layer.activation.gated for layer in self._layers)
        elements = (
            chunk * size,
            rows * max(projected, queries + size),
            rows * queries,
            chunk * 2 * width if gated else 0,
            chunk * width,
            chunk * size,
            rows * size,
        )
        self._buffers = [torch.empty(count, dtype=self._dtype) for count in elements]
        for name, buffer in zip(_BUFFERS, self._buffers, strict=True):
            setattr(self._space, name, buffer.data_ptr())
        self._space.threads = threads
        self._capacity = rows


def fuse_layers(
    library: Library,
    dtype: torch.dtype,
    parts: Sequence[LayerParts | None],
    norm: NormOperations,
    attention: AttentionKernel,
) -> StackOperation | None:
    """All layers as one operation, or None if a part of one of them is not in C."""
    known = [part for part in parts if part is not None]
    if not (isinstance(norm, NativeNorm) and isinstance(attention, NativeAttention)):
        return None
    if not known or len(known) < len(parts):
        return None
    try:
        layers = [_layer(part) for part in known]
    except _NotInCError:
        return None
    return NativeStack(library, dtype, known, layers, norm)


class _NotInCError(Exception):
    """A part of a layer has no structure."""


def _layer(part: LayerParts) -> _Layer:
    norms = part.head_norms
    first, activation = _activation(part.feed_forward.first)
    return _Layer(
        _block(part.attention, part.attention.first, Kind.NARROW),
        _block(part.feed_forward, first, Kind.NARROW if activation.function else Kind.GATED),
        queries=_norm(norms.queries if norms else None),
        keys=_norm(norms.keys if norms else None),
        activation=activation,
        parallel=part.parallel,
    )


def _activation(first: LinearOperation) -> tuple[LinearOperation, ActivationStructure]:
    """A layer, and what follows it; nothing does where it has its activation inside."""
    if not isinstance(first, ActivatedLinear):
        return first, ActivationStructure()
    if not isinstance(first.activation, NativeActivation):
        raise _NotInCError
    return first.linear, first.activation.structure


def _block(block: Block, first: LinearOperation, kind: Kind) -> _Block:
    return _Block(
        _norm(block.before), _norm(block.after), _linear(first, kind), _linear(block.second)
    )


def _norm(norm: NormOperations | None) -> NormStructure:
    if norm is None:
        return NormStructure()
    if not isinstance(norm, NativeNorm):
        raise _NotInCError
    return norm.structure


def _linear(linear: LinearOperation, kind: Kind = Kind.NARROW) -> Any:
    if not isinstance(linear, NativeLinear | QuantizedLinear) or linear.kind is not kind:
        raise _NotInCError
    if isinstance(linear, QuantizedLinear) and linear.order is not None:
        raise _NotInCError
    return linear.structure


def _kind(plan: StepPlan, angles: Angles | None) -> tuple[int, int, int, int]:
    """``Kind`` of layers.h."""
    if angles is None:
        return plan.address, 0, 0, 0
    plan.step.channels = angles[0].shape[-1]
    return plan.address, angles[0].data_ptr(), angles[1].data_ptr(), angles[0].stride(0)
