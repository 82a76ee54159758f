"""CPU kernel: attention over the paged KV cache in C, in float32 and bfloat16.

In float32, keys and values may be kept in bfloat16: half the memory, and half of what is read.

The same as the reference, but nothing is gathered: blocks are read where they are. The inside of a
block is its own (see ``native/attention.h``): one kernel object writes and reads a cache.
"""

import ctypes
from dataclasses import dataclass

import numpy as np
import torch

from worker.inputs import StepInputs
from worker.kernels.cpu.library import Library, cached_elements
from worker.kernels.reference.attention import (
    UNSCALED,
    Angles,
    AttentionShape,
    KVScales,
)
from worker.kernels.reference.norm import HeadNorms

_LANES = 16
_MOST_DIM = 512


class _Step(ctypes.Structure):
    """``AttentionStep`` of attention_step.h."""

    _fields_ = [
        *[(name, ctypes.c_int64) for name in ("heads", "kv_heads", "head_dim", "channels")],
        ("window", ctypes.c_int64),
        ("tables", ctypes.c_void_p),
        ("table_width", ctypes.c_int64),
        *[
            field
            for name in ("units", "items", "merges")
            for field in ((name, ctypes.c_void_p), (f"num_{name}", ctypes.c_int64))
        ],
        ("parts", ctypes.c_void_p),
        ("scale", ctypes.c_float),
        ("cap", ctypes.c_float),
        ("narrow", ctypes.c_int64),
    ]


_NUMBERS = {"units": 4, "items": 9, "merges": 3}
"""How many int64 each of these structures has."""


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What one step reads and writes, and the memory that ``step`` points into."""

    step: _Step
    address: int
    kept: list[object]


class NativeAttention:
    """Attention of one shape, as every layer of a model has it."""

    capturable = False

    def __init__(
        self,
        library: Library,
        shape: AttentionShape,
        dtype: torch.dtype,
        kv_dtype: torch.dtype | None = None,
    ) -> None:
        """``kv_dtype``: of the caches; None: ``dtype``."""
        self._shape = shape
        self._narrow = kv_dtype not in (None, dtype)
        self._plan = library.attention_plan
        self._attend = getattr(library, f"attend_{cached_elements(dtype, kv_dtype or dtype)}")

    @staticmethod
    def fits(
        shape: AttentionShape, dtype: torch.dtype, kv_dtype: torch.dtype | None = None
    ) -> bool:
        """Whether there is a kernel for this shape; others run on the reference.

        The largest score is looked for before it is scaled, so the scale has to be positive.
        """
        whole = shape.head_dim % _LANES == 0 and shape.head_dim <= _MOST_DIM
        there = cached_elements(dtype, kv_dtype or dtype) is not None
        return whole and shape.scale > 0 and there

    def plans(
        self, inputs: StepInputs, blocks: int, windows: tuple[int | None, ...] = (None,)
    ) -> list[StepPlan]:
        """As the reference's."""
        longest = max(inputs.lengths_host)
        needed = [window if window and window < longest else 0 for window in windows]
        made = {window: self._plan_step(inputs, window) for window in dict.fromkeys(needed)}
        return [made[window] for window in needed]

    def attend(
        self,
        qkv: torch.Tensor,
        cache: torch.Tensor,
        step: StepPlan,
        angles: Angles | None = None,
        norms: HeadNorms | None = None,
        scales: KVScales = UNSCALED,
    ) -> torch.Tensor:
        """As the reference's; the inside of the cache's blocks is different. Never of 8 bits."""
        shape = self._shape
        if norms is not None:
            norms.apply_(qkv, shape.heads, shape.kv_heads)
        output = qkv.new_empty((len(qkv), shape.heads * shape.head_dim))
        cosines = sines = stride = 0
        if angles is not None:
            step.step.channels = angles[0].shape[-1]
            cosines, sines = angles[0].data_ptr(), angles[1].data_ptr()
            stride = angles[0].stride(0)
        keys = cache.data_ptr()
        values = keys + cache.stride(0) * cache.element_size()
        self._attend(
            step.address, qkv.data_ptr(), keys, values, cosines, sines, stride, output.data_ptr()
        )
        return output

    def _plan_step(self, inputs: StepInputs, window: int) -> StepPlan:
        shape = self._shape
        tables = inputs.block_tables
        counts = np.array(inputs.query_lengths_host, dtype=np.int64)
        step = _Step(
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            window=window,
            tables=tables.data_ptr(),
            table_width=tables.shape[1],
            scale=shape.scale,
            cap=shape.cap or 0.0,
            narrow=self._narrow,
        )
        address = ctypes.addressof(step)
        sequences = (
            len(counts),
            counts.ctypes.data,
            inputs.lengths.data_ptr(),
            inputs.slots.data_ptr(),
        )
        parts = self._plan(address, *sequences)
        kept: list[object] = [tables]
        for name, numbers in _NUMBERS.items():
            count = getattr(step, f"num_{name}")
            if count:
                array = np.empty((count, numbers), dtype=np.int64)
                setattr(step, name, array.ctypes.data)
                kept.append(array)
        if parts:
            sums = torch.empty((parts, shape.heads, shape.head_dim + _LANES), dtype=torch.float32)
            step.parts = sums.data_ptr()
            kept.append(sums)
        self._plan(address, *sequences)
        return StepPlan(step, address, kept)
