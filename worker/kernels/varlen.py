"""Attention by torch's own ``varlen_attn`` over the paged cache, on CUDA devices.

No package beside torch is needed. Which pages it takes depends on the implementation that is
active in this process: FlashAttention 2, which torch brings, is known to want pages of 256 tokens;
``refusal`` asks it. Not captured in graphs: the longest length is an argument.
"""

from dataclasses import dataclass, replace

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

_MOST_DIM = 256


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What one step reads and writes: the same in every layer of one window."""

    slots: torch.Tensor  # [T]
    tables: torch.Tensor  # [S, blocks] int32
    lengths: torch.Tensor  # [S] int32
    starts: torch.Tensor  # [S + 1] int32, rows where sequences begin
    most_queries: int
    most_keys: int
    window: tuple[int, int]


class VarlenAttention:
    """Attention of one shape, as every layer of a model has it."""

    capturable = False

    def __init__(self, shape: AttentionShape, *, device: torch.device, dtype: torch.dtype) -> None:
        self._shape = shape

    @staticmethod
    def fits(shape: AttentionShape) -> bool:
        """It knows no cap."""
        return shape.cap is None and shape.head_dim <= _MOST_DIM and shape.head_dim % 8 == 0

    def plans(
        self, inputs: StepInputs, blocks: int, windows: tuple[int | None, ...] = (None,)
    ) -> list[StepPlan]:
        """As the reference's."""
        starts = np.cumsum((0, *inputs.query_lengths_host), dtype=np.int32)
        first = StepPlan(
            slots=inputs.slots,
            tables=inputs.block_tables.int(),
            lengths=inputs.lengths.int(),
            starts=send(torch.from_numpy(starts), inputs.slots.device),
            most_queries=max(inputs.query_lengths_host),
            most_keys=max(inputs.lengths_host),
            window=(-1, 0),
        )
        return [
            first if window is None else replace(first, window=(window - 1, 0))
            for window in windows
        ]

    def attend(
        self,
        qkv: torch.Tensor,
        cache: torch.Tensor,
        step: StepPlan,
        angles: Angles | None = None,
        norms: HeadNorms | None = None,
        scales: KVScales = UNSCALED,
    ) -> torch.Tensor:
        """As the reference's; the cache is never of 8 bits."""
        queries = store_normed(qkv, step.slots, cache, self._shape, angles, norms)
        return _attend(queries, cache, step, self._shape.scale).view(len(qkv), -1)


def refusal(device: torch.device, dtype: torch.dtype) -> str:
    """Why torch cannot attend over our blocks here; empty if it can. Tries it on two tokens."""
    size, heads, head_dim = 2, 1, 64
    step = StepPlan(
        slots=torch.arange(size, device=device),
        tables=torch.zeros((1, 1), dtype=torch.int32, device=device),
        lengths=torch.full((1,), size, dtype=torch.int32, device=device),
        starts=torch.tensor([0, size], dtype=torch.int32, device=device),
        most_queries=size,
        most_keys=size,
        window=(-1, 0),
    )
    queries = torch.zeros((size, heads, head_dim), dtype=dtype, device=device)
    cache = torch.zeros((2, 1, heads, BLOCK_TOKENS, head_dim), dtype=dtype, device=device)
    try:
        _attend(queries, cache, step, 1.0)
    except (ImportError, TypeError, RuntimeError) as error:  # also: an older torch, another GPU
        reason = str(error).strip().splitlines()[0]
        return f"torch's paged attention does not take blocks of {BLOCK_TOKENS} tokens ({reason})"
    return ""


def _attend(
    queries: torch.Tensor, cache: torch.Tensor, step: StepPlan, scale: float
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn  # not in every torch

    pages = cache.transpose(2, 3)  # as it wants them: [2, blocks, 16, kv heads, head_dim]
    attended = varlen_attn(
        queries,
        pages[0],
        pages[1],
        step.starts,
        None,
        step.most_queries,
        step.most_keys,
        scale=scale,
        window_size=step.window,
        enable_gqa=True,
        seqused_k=step.lengths,
        block_table=step.tables,
    )
    assert isinstance(attended, torch.Tensor)
    return attended
