"""Triton kernel: attention of prompt chunks over the paged cache, behind whatever comes before.

A tile holds a few consecutive tokens of one chunk with all query heads of a KV head. Tiles are
listed on the host, which knows the chunks; the longest go first, so that none is left at the end.
"""

import torch
import triton
import triton.language as tl

from common.messages import BLOCK_TOKENS
from worker.kernels.reference.attention import UNSCALED, AttentionShape, KVScales
from worker.kernels.triton.online import STAGES, absorb, in_powers_of_two, score, with_sinks

_WIDE_BYTES = 101 << 10
TILE_NUMBERS = 4
"""Of a tile: sequence, first row of the packed tokens, tokens, position of the first one."""


@triton.jit
def _absorb_tiles(
    query,
    own,
    begin,
    end,
    length,
    cache,
    to_values,
    table,
    kv_head,
    most,
    total,
    sums,
    scale,
    cap,
    CAPPED: tl.constexpr,
    MASKED: tl.constexpr,
    WINDOW: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
    KEYS: tl.constexpr,
):
    """Keys ``begin`` … ``end``, of which all rows see all unless MASKED; own [M], positions."""
    channels = tl.arange(0, CHANNELS)
    for start in range(begin, end, KEYS):
        positions = start + tl.arange(0, KEYS)
        written = positions < length
        if MASKED:
            blocks = tl.load(table + positions // BLOCK, mask=written, other=0)
        else:
            blocks = tl.load(table + positions // BLOCK)
        places = (blocks.to(tl.int64) * KV_HEADS + kv_head) * BLOCK + positions % BLOCK
        places = places * HEAD_DIM
        keys = cache + places[None, :] + channels[:, None]
        values = cache + to_values + places[:, None] + channels[None, :]
        # Only what the sequence has written is read: 0 · NaN would be NaN.
        if MASKED:
            inside = channels < HEAD_DIM
            keys = tl.load(keys, mask=written[None, :] & inside[:, None], other=0.0)
            values = tl.load(values, mask=written[:, None] & inside[None, :], other=0.0)
        elif HEAD_DIM < CHANNELS:
            keys = tl.load(keys, mask=(channels < HEAD_DIM)[:, None], other=0.0)
            values = tl.load(values, mask=(channels < HEAD_DIM)[None, :], other=0.0)
        else:
            keys = tl.load(keys)
            values = tl.load(values)
        scores = score(query, keys.to(query.dtype), scale, cap, CAPPED)
        if MASKED:
            seen = positions[None, :] <= own[:, None]
            if WINDOW > 0:
                seen = seen & (positions[None, :] > own[:, None] - WINDOW)
            scores = tl.where(seen, scores, float("-inf"))
        values = values.to(query.dtype)
        most, total, sums = absorb(scores, values, most, total, sums, scale, CAPPED)
    return most, total, sums


@triton.jit(do_not_specialize=["table_row"])  # it changes from step to step
def _attend(
    queries,
    query_row,
    cache,
    to_values,
    tables,
    table_row,
    tiles,
    output,
    sinks,
    scale,
    cap,
    value_scale,
    SINKS: tl.constexpr,
    CAPPED: tl.constexpr,
    WINDOW: tl.constexpr,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
    KEYS: tl.constexpr,
):
    """One tile, one KV head; row r is query head r % GROUP of the tile's token r // GROUP."""
    tile = tiles + tl.program_id(0) * 4
    kv_head = tl.program_id(1)
    sequence = tl.load(tile).to(tl.int64)
    first_row = tl.load(tile + 1).to(tl.int64)
    count = tl.load(tile + 2)
    position = tl.load(tile + 3)
    length = position + count

    rows = tl.arange(0, ROWS)
    channels = tl.arange(0, CHANNELS)
    token = rows // GROUP
    head = kv_head * GROUP + rows % GROUP
    held = (token < count)[:, None] & (channels < HEAD_DIM)[None, :]
    where = queries + (first_row + token)[:, None] * query_row + head[:, None] * HEAD_DIM
    query = tl.load(where + channels[None, :], mask=held, other=0.0)
    own = position + token

    most = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    sums = tl.zeros([ROWS, CHANNELS], tl.float32)
    table = tables + sequence * table_row
    # Keys before the tile's first token are seen by every row, unless a window has passed them.
    begin = 0
    whole = 0
    if WINDOW > 0:
        begin = tl.maximum(position + 1 - WINDOW, 0) // KEYS * KEYS
        whole = tl.cdiv(tl.maximum(length - WINDOW, 0), KEYS) * KEYS
    last = tl.maximum(position // KEYS * KEYS, begin)
    whole = tl.minimum(whole, last)
    if WINDOW > 0:
        most, total, sums = _absorb_tiles(
            query, own, begin, whole, length, cache, to_values, table, kv_head, most, total, sums,
            scale, cap, CAPPED, True, WINDOW, KV_HEADS, HEAD_DIM, CHANNELS, BLOCK, KEYS,
        )  # fmt: skip
    most, total, sums = _absorb_tiles(
        query, own, whole, last, length, cache, to_values, table, kv_head, most, total, sums,
        scale, cap, CAPPED, False, WINDOW, KV_HEADS, HEAD_DIM, CHANNELS, BLOCK, KEYS,
    )  # fmt: skip
    most, total, sums = _absorb_tiles(
        query, own, last, length, length, cache, to_values, table, kv_head, most, total, sums,
        scale, cap, CAPPED, True, WINDOW, KV_HEADS, HEAD_DIM, CHANNELS, BLOCK, KEYS,
    )  # fmt: skip
    if SINKS:
        total = with_sinks(total, most, tl.load(sinks + head))
    sums = sums * (value_scale / tl.where(total > 0, total, 1.0))[:, None]
    where = (first_row + token) * (KV_HEADS * GROUP) + head
    where = output + where[:, None] * HEAD_DIM + channels[None, :]
    tl.store(where, sums.to(output.dtype.element_ty), mask=held)


def tile_rows(shape: AttentionShape, dtype: torch.dtype) -> int:
    """Rows of a tile: queries of all its tokens. 128 are what two groups of four warps multiply.

    In float32, which has no matrix units, tiles are small enough for the registers.
    """
    group = shape.heads // shape.kv_heads
    wanted = 16 if dtype == torch.float32 else 64 if shape.head_dim > 128 else 128
    return max(wanted, int(triton.next_power_of_2(group)))


def choose_stages(shape: AttentionShape, shared_bytes: int) -> int:
    """Of the pipeline, for a GPU that gives a block so much shared memory.

    Tiles of wide heads in two buffers take 101 KiB. GPUs of data centres have 163 or 227, those of
    capability 8.6, 8.9 and 12 have 99: there they wait for each tile.
    """
    fits = shape.head_dim <= 128 or shared_bytes >= _WIDE_BYTES
    return STAGES if fits else STAGES - 1


def attend_chunks(
    queries: torch.Tensor,
    cache: torch.Tensor,
    tables: torch.Tensor,
    tiles: torch.Tensor,
    output: torch.Tensor,
    *,
    shape: AttentionShape,
    window: int,
    scales: KVScales = UNSCALED,
    sinks: torch.Tensor | None = None,
    stages: int = STAGES,
) -> None:
    """Queries of the ``tiles``, causal, over their own sequences: the latest ``window`` tokens.

    queries [T, heads, head_dim], heads side by side; cache as ``KVCache`` has it, in the dtype of
    the queries or in 8 bits, with ``scales``; tables [S, blocks], any integers; tiles [tiles, 4]
    int32, of at most ``tile_rows`` / (query heads per KV head) tokens each; output [T, heads ·
    head_dim], contiguous, of which the tiles' rows are written; sinks [heads]. A window of 0 sees
    everything.
    """
    rows = tile_rows(shape, queries.dtype)
    channels = triton.next_power_of_2(max(16, shape.head_dim))
    wide = queries.dtype == torch.float32
    scale, cap = in_powers_of_two(shape, scales)
    _attend[(len(tiles), shape.kv_heads)](
        queries,
        queries.stride(0),
        cache,
        cache.stride(0),
        tables,
        tables.stride(0),
        tiles,
        output,
        output if sinks is None else sinks,
        scale,
        cap,
        scales.values,
        SINKS=sinks is not None,
        CAPPED=shape.cap is not None,
        WINDOW=window,
        KV_HEADS=shape.kv_heads,
        GROUP=shape.heads // shape.kv_heads,
        ROWS=rows,
        HEAD_DIM=shape.head_dim,
        CHANNELS=channels,
        BLOCK=BLOCK_TOKENS,
        KEYS=16 if wide else 64 if channels <= 128 else 32,
        num_warps=8 if rows >= 128 or channels > 128 or wide else 4,
        num_stages=2 if wide else stages,
        enable_fp_fusion=True,  # not the default of every Triton
    )
