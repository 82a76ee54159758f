"""Paged attention on a GPU: store, then decoding sequences and prompt chunks by a kernel each.

Fulfils ``AttentionKernel``. A plan is tensors that are on the device already, and numbers; only the
list of a mixed step's tiles is made on the host, and sent without waiting. Reads nothing that a
sequence has not written itself (or taken from the prefix cache), so no block is ever cleared.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from worker.inputs import StepInputs
from worker.kernels.reference.attention import (
    UNSCALED,
    Angles,
    AttentionShape,
    KVScales,
)
from worker.kernels.reference.norm import HeadNorms
from worker.kernels.triton.chunks import (
    TILE_NUMBERS,
    attend_chunks,
    choose_stages,
    tile_rows,
)
from worker.kernels.triton.decode import (
    Parts,
    Splitting,
    attend_decoding,
    choose_splitting,
    make_parts,
)
from worker.kernels.triton.norm import TritonNorm
from worker.kernels.triton.store import store
from worker.transfers import send

_MOST_DIM = 256
_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_PROCESSORS, _SHARED_BYTES = 132, 227 << 10
"""Multiprocessors of an H100 or H200, and what a block may share: assumed where there is no GPU."""


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What one step reads and writes: the same in every layer of one window."""

    slots: torch.Tensor  # [T], where keys and values go
    tables: torch.Tensor  # [S, blocks]
    lengths: torch.Tensor  # [S], after the step
    decoding: int
    window: int  # 0: everything is seen
    splitting: Splitting
    parts: Parts | None
    tiles: torch.Tensor | None  # [tiles, 4] int32, see ``chunks``; None: no prompts


class TritonAttention:
    """Attention of one shape, as every layer of a model has it."""

    capturable = True

    def __init__(
        self,
        shape: AttentionShape,
        *,
        device: torch.device,
        dtype: torch.dtype,
        sinks: torch.Tensor | None = None,
    ) -> None:
        """``sinks`` [heads], of one layer: see ``reference/sinks.py``."""
        self._shape = shape
        self._sinks = None if sinks is None else sinks.detach().float().contiguous()
        self._tile_tokens = tile_rows(shape, dtype) // (shape.heads // shape.kv_heads)
        self._processors, shared_bytes = _PROCESSORS, _SHARED_BYTES
        if device.type == "cuda":
            properties = torch.cuda.get_device_properties(device)
            self._processors = properties.multi_processor_count
            # Not every torch tells, nor do its types.
            shared_bytes = getattr(properties, "shared_memory_per_block_optin", _SHARED_BYTES)
        self._stages = choose_stages(shape, shared_bytes)

    @staticmethod
    def fits(shape: AttentionShape, dtype: torch.dtype) -> bool:
        """Whether there is a kernel for this shape; others run on the reference.

        The largest score is looked for before it is scaled, so the scale has to be positive.
        """
        return shape.scale > 0 and shape.head_dim <= _MOST_DIM and dtype in _DTYPES

    def plans(
        self, inputs: StepInputs, blocks: int, windows: tuple[int | None, ...] = (None,)
    ) -> list[StepPlan]:
        """As the reference's. Looks at no length of a decoding sequence: a graph may be captured.

        Nor does it wait for the device.
        """
        decoding = inputs.decode_sequences
        splitting = choose_splitting(decoding, self._shape.kv_heads, self._processors)
        first = StepPlan(
            slots=inputs.slots,
            tables=inputs.block_tables,
            lengths=inputs.lengths,
            decoding=decoding,
            window=0,
            splitting=splitting,
            parts=make_parts(decoding, self._shape, splitting, inputs.slots.device),
            tiles=self._tiles(inputs),
        )
        return [replace(first, window=window or 0) for window in windows]

    def attend(
        self,
        qkv: torch.Tensor,
        cache: torch.Tensor,
        step: StepPlan,
        angles: Angles | None = None,
        norms: HeadNorms | None = None,
        scales: KVScales = UNSCALED,
    ) -> torch.Tensor:
        """As the reference's; qkv stays as it is."""
        shape = self._shape
        queries = store_normed(qkv, step.slots, cache, shape, angles, norms, scales)
        output = qkv.new_empty((len(qkv), shape.heads * shape.head_dim))
        if step.decoding:
            attend_decoding(
                queries[: step.decoding],
                cache,
                step.tables,
                step.lengths,
                output,
                shape=shape,
                window=step.window,
                splitting=step.splitting,
                parts=step.parts,
                scales=scales,
                sinks=self._sinks,
            )
        if step.tiles is not None:
            attend_chunks(
                queries,
                cache,
                step.tables,
                step.tiles,
                output,
                shape=shape,
                window=step.window,
                scales=scales,
                sinks=self._sinks,
                stages=self._stages,
            )
        return output

    def _tiles(self, inputs: StepInputs) -> torch.Tensor | None:
        """Pieces of the chunks, those with the most to read first."""
        decoding = inputs.decode_sequences
        counts = np.array(inputs.query_lengths_host[decoding:], dtype=np.int64)
        if not len(counts):
            return None
        lengths = np.array(inputs.lengths_host[decoding:], dtype=np.int64)
        size = self._tile_tokens
        pieces = -(-counts // size)
        chunk = np.repeat(np.arange(len(counts)), pieces)
        within = (np.arange(len(chunk)) - (np.cumsum(pieces) - pieces)[chunk]) * size
        starts = decoding + np.cumsum(counts) - counts
        tiles = np.empty((len(chunk), TILE_NUMBERS), dtype=np.int32)
        tiles[:, 0] = decoding + chunk
        tiles[:, 1] = starts[chunk] + within
        tiles[:, 2] = np.minimum(counts[chunk] - within, size)
        tiles[:, 3] = (lengths - counts)[chunk] + within
        tiles = tiles[np.argsort(-tiles[:, 3], kind="stable")]
        return send(torch.from_numpy(tiles), inputs.slots.device)


def store_normed(
    qkv: torch.Tensor,
    slots: torch.Tensor,
    cache: torch.Tensor,
    shape: AttentionShape,
    angles: Angles | None,
    norms: HeadNorms | None,
    scales: KVScales = UNSCALED,
) -> torch.Tensor:
    """``store`` with any norms: what every attention over a cache of these pages begins with."""
    fused = fuse_norms(norms, qkv, shape)
    return store(qkv, slots, cache, shape=shape, angles=angles, norms=fused, scales=scales)


def fuse_norms(
    norms: HeadNorms | None, qkv: torch.Tensor, shape: AttentionShape
) -> tuple[TritonNorm, TritonNorm] | None:
    """For ``store`` to apply; others are applied here, in place, and leave nothing to do."""
    if norms is None:
        return None
    queries, keys = norms.queries, norms.keys
    if isinstance(queries, TritonNorm) and isinstance(keys, TritonNorm):
        return queries, keys
    norms.apply_(qkv, shape.heads, shape.kv_heads)
    return None
