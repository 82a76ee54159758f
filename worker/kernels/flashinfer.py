"""Attention by FlashInfer over the paged cache, where that package is installed.

Its plans are made on the host, from lengths that the host knows: steps are not captured in graphs.
Blocks of 16 tokens with their heads outside are what it calls the layout HND.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from common.messages import BLOCK_TOKENS
from worker.inputs import StepInputs
from worker.kernels.reference.attention import (
    UNSCALED,
    Angles,
    AttentionShape,
    KVScales,
)
from worker.kernels.reference.norm import HeadNorms
from worker.kernels.triton.attention import store_normed
from worker.transfers import send

_WORKSPACE_BYTES = 128 << 20
"""What its documentation recommends."""
_HEAD_DIMS = (64, 128, 256)
_TURNS = 2
"""RACE: a wrapper plans in pinned memory of its own, which the device copies when it comes to it,
and that may be while the host plans the next step. So steps take turns with their wrappers: when
one is planned with again, the step that it was planned for before has been read."""


@dataclass(frozen=True, slots=True)
class StepPlan:
    """A planned wrapper, valid until the plans of the next step but one are made."""

    slots: torch.Tensor  # [T]
    wrapper: Any


class FlashInferAttention:
    """Attention of one shape, as every layer of a model has it."""

    capturable = False

    def __init__(
        self,
        package: Any,
        shape: AttentionShape,
        *,
        device: torch.device,
        dtype: torch.dtype,
        kv_dtype: torch.dtype,
    ) -> None:
        """``package`` is the imported module."""
        self._package = package
        self._shape = shape
        self._dtypes = dtype, kv_dtype
        self._workspace = torch.empty(_WORKSPACE_BYTES, dtype=torch.uint8, device=device)
        self._wrappers: dict[tuple[int, int | None], Any] = {}
        self._turn = 0

    @staticmethod
    def fits(shape: AttentionShape) -> bool:
        """Whether it has a kernel for this shape."""
        return shape.head_dim in _HEAD_DIMS

    def plans(
        self, inputs: StepInputs, blocks: int, windows: tuple[int | None, ...] = (None,)
    ) -> list[StepPlan]:
        """As the reference's."""
        lengths = np.array(inputs.lengths_host, dtype=np.int32)
        pages = -(-lengths // BLOCK_TOKENS)
        starts = np.concatenate(([0], np.cumsum(pages)))
        sequence = np.repeat(np.arange(len(lengths)), pages)
        column = np.arange(len(sequence)) - starts[sequence]
        where = torch.from_numpy(sequence * inputs.block_tables.shape[1] + column)
        where = send(where, inputs.slots.device)
        indices = inputs.block_tables.reshape(-1).index_select(0, where).int()
        queries = np.concatenate(([0], np.cumsum(inputs.query_lengths_host)))
        last = lengths - (pages - 1) * BLOCK_TOKENS
        made: dict[int | None, StepPlan] = {}
        self._turn = (self._turn + 1) % _TURNS
        for window in windows:
            if window not in made:
                wrapper = self._plan(window, queries, starts, indices, last)
                made[window] = StepPlan(inputs.slots, wrapper)
        return [made[window] for window in windows]

    def attend(
        self,
        qkv: torch.Tensor,
        cache: torch.Tensor,
        step: StepPlan,
        angles: Angles | None = None,
        norms: HeadNorms | None = None,
        scales: KVScales = UNSCALED,
    ) -> torch.Tensor:
        """As the reference's."""
        queries = store_normed(qkv, step.slots, cache, self._shape, angles, norms, scales)
        attended: torch.Tensor = step.wrapper.run(
            queries.contiguous(),
            (cache[0], cache[1]),
            k_scale=scales.keys,
            v_scale=scales.values,
        )
        return attended.view(len(qkv), -1)

    def _plan(
        self,
        window: int | None,
        queries: "np.ndarray[Any, Any]",
        pages: "np.ndarray[Any, Any]",
        indices: torch.Tensor,
        last: "np.ndarray[Any, Any]",
    ) -> Any:
        """Queries and pages [S + 1], where sequences begin; last [S], tokens of the last page."""
        shape = self._shape
        wrapper = self._wrappers.get((self._turn, window))
        if wrapper is None:
            wrapper = self._package.BatchPrefillWithPagedKVCacheWrapper(self._workspace, "HND")
            self._wrappers[self._turn, window] = wrapper
        wrapper.plan(
            torch.from_numpy(queries.astype(np.int32)),
            torch.from_numpy(pages.astype(np.int32)),
            indices,
            torch.from_numpy(last.astype(np.int32)),
            shape.heads,
            shape.kv_heads,
            shape.head_dim,
            BLOCK_TOKENS,
            causal=True,
            sm_scale=shape.scale,
            window_left=-1 if window is None else window - 1,
            logits_soft_cap=shape.cap,
            q_data_type=self._dtypes[0],
            kv_data_type=self._dtypes[1],
        )
        return wrapper
