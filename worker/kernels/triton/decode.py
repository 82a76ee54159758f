"""Triton kernel: attention of decoding sequences, one query token each, over the paged cache.

The query heads of a KV head are the rows of one tile, so every key and value is read once. While
sequences are few their keys are split among programs, and a second kernel combines the parts. How
many programs there are depends on the number of sequences alone; how many of them have work, each
finds from its sequence's length on the device. So a step can be captured in a graph.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from common.messages import BLOCK_TOKENS
from worker.kernels.reference.attention import UNSCALED, AttentionShape, KVScales
from worker.kernels.triton.launch import early, follow
from worker.kernels.triton.online import STAGES, absorb, in_powers_of_two, score, with_sinks

_PROGRAMS = 2048
"""Most programs that splitting makes: those without work cost their start."""
_MOST_SPLITS = 32
_TILES_PER_SPLIT = 8
"""At most so many tiles of keys are the least that a split takes."""


@dataclass(frozen=True, slots=True)
class Splitting:
    """How the keys of a sequence are divided; of the number of sequences alone."""

    splits: int
    """A power of two."""
    least_tiles: int
    """Of so many tiles of keys, or the rest, there is a split each; all of them get the same."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Where splits leave what they have found: the same memory for all layers of a step."""

    sums: torch.Tensor  # [n, heads, splits, head_dim] float32
    logs: torch.Tensor  # [n, heads, splits] float32, log2 of the sum of the exponentials


def choose_splitting(sequences: int, kv_heads: int, processors: int) -> Splitting:
    """For a GPU with so many multiprocessors. Each other number of splits is compiled anew."""
    pairs = max(1, sequences * kv_heads)
    splits = min(_MOST_SPLITS, 1 << max(0, (_PROGRAMS // pairs).bit_length() - 1))
    return Splitting(splits, min(_TILES_PER_SPLIT, max(1, 4 * pairs // processors)))


def make_parts(
    sequences: int, shape: AttentionShape, splitting: Splitting, device: torch.device
) -> Parts | None:
    """None where nothing is split."""
    if splitting.splits == 1:
        return None
    size = (sequences, shape.heads, splitting.splits)
    return Parts(
        torch.empty((*size, shape.head_dim), dtype=torch.float32, device=device),
        torch.empty(size, dtype=torch.float32, device=device),
    )


@triton.jit(do_not_specialize=["table_row", "least_tiles"])  # they change from step to step
def _attend(
    queries,
    query_row,
    cache,
    to_values,
    tables,
    table_row,
    lengths,
    output,
    logs,
    sinks,
    scale,
    cap,
    value_scale,
    least_tiles,
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
    SPLITS: tl.constexpr,
    EARLY: tl.constexpr,
):
    """One sequence, one KV head, one split.

    queries [n, heads, head_dim]; cache [2, blocks, kv heads, 16, head_dim]; output [n, heads,
    head_dim], or the sums of ``Parts`` if there are splits; sinks [heads] if SINKS.
    """
    follow(EARLY)
    sequence = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    rows = tl.arange(0, ROWS)
    channels = tl.arange(0, CHANNELS)
    heads = kv_head * GROUP + rows
    held = (rows < GROUP)[:, None] & (channels < HEAD_DIM)[None, :]

    length = tl.load(lengths + sequence).to(tl.int32)
    oldest = 0
    if WINDOW > 0:
        oldest = tl.maximum(length - WINDOW, 0)
    first_tile = oldest // KEYS
    tiles = tl.cdiv(length, KEYS) - first_tile
    # PERF: all alike, as the longest ends last: ten tiles of at least eight are 5 + 5, not 8 + 2.
    used = tl.minimum(tl.cdiv(tiles, least_tiles), SPLITS)
    share = tl.cdiv(tiles, tl.maximum(used, 1))
    begin = (first_tile + split * share) * KEYS
    end = tl.minimum(begin + share * KEYS, length)

    where = queries + sequence * query_row + heads[:, None] * HEAD_DIM + channels[None, :]
    query = tl.load(where, mask=held, other=0.0)
    most = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    sums = tl.zeros([ROWS, CHANNELS], tl.float32)
    for start in range(begin, end, KEYS):
        positions = start + tl.arange(0, KEYS)
        seen = (positions < end) & (positions >= oldest)
        # Only what the sequence has written is read: 0 · NaN would be NaN. PERF: masks in every
        # tile, not a last tile by itself: memory is the limit, and a loop of its own waits anew.
        blocks = tl.load(tables + sequence * table_row + positions // BLOCK, mask=seen, other=0)
        places = (blocks.to(tl.int64) * KV_HEADS + kv_head) * BLOCK + positions % BLOCK
        places = places * HEAD_DIM
        wanted = seen[None, :] & (channels < HEAD_DIM)[:, None]
        keys = tl.load(cache + places[None, :] + channels[:, None], mask=wanted, other=0.0)
        scores = score(query, keys.to(query.dtype), scale, cap, CAPPED)
        scores = tl.where(seen[None, :], scores, float("-inf"))
        wanted = seen[:, None] & (channels < HEAD_DIM)[None, :]
        values = cache + to_values + places[:, None] + channels[None, :]
        values = tl.load(values, mask=wanted, other=0.0).to(query.dtype)
        most, total, sums = absorb(scores, values, most, total, sums, scale, CAPPED)

    if SINKS and SPLITS == 1:
        total = with_sinks(total, most, tl.load(sinks + heads, mask=rows < GROUP, other=0.0))
    # A sequence of no tokens (a graph's padding) yields zeros.
    sums = sums * (value_scale / tl.where(total > 0, total, 1.0))[:, None]
    every_head = sequence * KV_HEADS * GROUP + heads
    if SPLITS == 1:
        where = output + every_head[:, None] * HEAD_DIM + channels[None, :]
        tl.store(where, sums.to(output.dtype.element_ty), mask=held)
    else:
        part = every_head * SPLITS + split
        # Of a split without work, the most is -inf, and so is its logarithm.
        log = most + tl.log2(tl.where(total > 0, total, 1.0))
        tl.store(logs + part, log, mask=rows < GROUP)
        if end > begin:
            tl.store(output + part[:, None] * HEAD_DIM + channels[None, :], sums, mask=held)


@triton.jit
def _combine(
    sums,
    logs,
    output,
    sinks,
    SINKS: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    CHANNELS: tl.constexpr,
    SPLITS: tl.constexpr,
    EARLY: tl.constexpr,
):
    """One sequence's head: ``Parts`` to output [n · heads, head_dim]."""
    follow(EARLY)
    row = tl.program_id(0).to(tl.int64)
    splits = tl.arange(0, SPLITS)
    channels = tl.arange(0, CHANNELS)
    log = tl.load(logs + row * SPLITS + splits)
    used = log > float("-inf")
    most = tl.max(log, 0)
    weights = tl.exp2(log - tl.where(most == float("-inf"), 0.0, most))
    where = sums + (row * SPLITS + splits)[:, None] * HEAD_DIM + channels[None, :]
    # Splits without work have written nothing: what lies there is not read.
    parts = tl.load(where, mask=used[:, None] & (channels < HEAD_DIM)[None, :], other=0.0)
    total = tl.sum(weights, 0)
    if SINKS:
        total = with_sinks(total, most, tl.load(sinks + row % HEADS))
    combined = tl.sum(parts * weights[:, None], 0) / tl.where(total > 0, total, 1.0)
    where = output + row * HEAD_DIM + channels
    tl.store(where, combined.to(output.dtype.element_ty), mask=channels < HEAD_DIM)


def attend_decoding(
    queries: torch.Tensor,
    cache: torch.Tensor,
    tables: torch.Tensor,
    lengths: torch.Tensor,
    output: torch.Tensor,
    *,
    shape: AttentionShape,
    window: int,
    splitting: Splitting,
    parts: Parts | None,
    scales: KVScales = UNSCALED,
    sinks: torch.Tensor | None = None,
) -> None:
    """One query per sequence, which sees the latest ``window`` tokens of it (0: all).

    queries [n, heads, head_dim], heads side by side; cache as ``KVCache`` has it, in the dtype of
    the queries or in 8 bits, with ``scales``; tables [n, blocks] and lengths [n], any integers;
    output [n, heads · head_dim], contiguous; sinks [heads]. A sequence of length 0 gets zeros.
    """
    count = len(queries)
    group = shape.heads // shape.kv_heads
    channels = triton.next_power_of_2(max(16, shape.head_dim))
    wide = queries.dtype == torch.float32
    scale, cap = in_powers_of_two(shape, scales)
    _attend[(count, shape.kv_heads, splitting.splits)](
        queries,
        queries.stride(0),
        cache,
        cache.stride(0),
        tables,
        tables.stride(0),
        lengths,
        parts.sums if parts is not None else output,
        parts.logs if parts is not None else output,
        output if sinks is None else sinks,
        scale,
        cap,
        scales.values,
        splitting.least_tiles,
        SINKS=sinks is not None,
        CAPPED=shape.cap is not None,
        WINDOW=window,
        KV_HEADS=shape.kv_heads,
        GROUP=group,
        ROWS=triton.next_power_of_2(max(16, group)),
        HEAD_DIM=shape.head_dim,
        CHANNELS=channels,
        BLOCK=BLOCK_TOKENS,
        KEYS=16 if wide else 64 if channels <= 128 else 32,
        SPLITS=splitting.splits,
        num_warps=8 if wide else 4,
        num_stages=2 if wide else STAGES,
        enable_fp_fusion=True,  # not the default of every Triton
        **early(queries.device),
    )
    if parts is None:
        return
    _combine[(count * shape.heads,)](
        parts.sums,
        parts.logs,
        output,
        output if sinks is None else sinks,
        SINKS=sinks is not None,
        HEADS=shape.heads,
        HEAD_DIM=shape.head_dim,
        CHANNELS=channels,
        SPLITS=splitting.splits,
        num_warps=2 if channels <= 128 else 4,
        **early(queries.device),
    )
