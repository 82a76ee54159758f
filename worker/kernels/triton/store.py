"""Triton kernel: what lies between the projection and attention, in one pass over its rows.

Queries and keys are normalised by heads where a model does so (Qwen3) and rotated; keys and values
go to their slots of the paged cache, in its dtype.
"""

import torch
import triton
import triton.language as tl

from common.messages import BLOCK_TOKENS
from worker.kernels.reference.attention import UNSCALED, Angles, AttentionShape, KVScales
from worker.kernels.triton.launch import early, follow
from worker.kernels.triton.norm import TritonNorm

_ELEMENTS = 2048
"""Of a program: some heads of one token."""


@triton.jit
def _store(
    qkv,
    row_stride,
    slots,
    cosines,
    sines,
    angle_row,
    query_weight,
    key_weight,
    query_epsilon,
    key_epsilon,
    rotated,
    cache,
    to_values,
    limit,
    key_factor,
    value_factor,
    FIRST: tl.constexpr,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    CHANNELS: tl.constexpr,
    TURNED: tl.constexpr,
    NORMED: tl.constexpr,
    LIMITED: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    EARLY: tl.constexpr,
):
    """Some heads of one token: qkv [T, heads + 2 kv heads, head_dim], from head FIRST on.

    TURNED channels of a head are rotated, 0 for none: channel i with channel i + TURNED / 2.
    """
    follow(EARLY)
    token = tl.program_id(0).to(tl.int64)
    heads = FIRST + tl.program_id(1) * TILE + tl.arange(0, TILE)
    channels = tl.arange(0, CHANNELS)
    held = (heads < HEADS + 2 * KV_HEADS)[:, None] & (channels < HEAD_DIM)[None, :]
    is_query = (heads < HEADS)[:, None]
    is_value = (heads >= HEADS + KV_HEADS)[:, None]
    row = qkv + token * row_stride + heads[:, None] * HEAD_DIM
    x = tl.load(row + channels[None, :], mask=held, other=0.0).to(tl.float32)
    if NORMED:
        epsilon = tl.where(is_query, query_epsilon, key_epsilon)
        shrink = tl.rsqrt(tl.sum(x * x, 1)[:, None] * (1.0 / HEAD_DIM) + epsilon)
        inside = channels < HEAD_DIM
        of_query = tl.load(query_weight + channels, mask=inside, other=0.0).to(tl.float32)
        of_key = tl.load(key_weight + channels, mask=inside, other=0.0).to(tl.float32)
        weight = tl.where(is_query, of_query[None, :], of_key[None, :])
        x = tl.where(is_value, x, x * shrink * weight)
    if TURNED > 0:
        # Each channel's other half is read again: it is in the cache of the processor.
        turned = channels < TURNED
        other = tl.where(turned, (channels + TURNED // 2) % TURNED, channels)
        y = tl.load(row + other[None, :], mask=held, other=0.0).to(tl.float32)
        if NORMED:
            of_query = tl.load(query_weight + other, mask=inside, other=0.0).to(tl.float32)
            of_key = tl.load(key_weight + other, mask=inside, other=0.0).to(tl.float32)
            y = y * shrink * tl.where(is_query, of_query[None, :], of_key[None, :])
        angle = token * angle_row + channels
        cosine = tl.load(cosines + angle, mask=turned, other=1.0).to(tl.float32)
        sine = tl.load(sines + angle, mask=turned, other=0.0).to(tl.float32)
        x = tl.where(is_value, x, x * cosine[None, :] + y * sine[None, :])
    if FIRST == 0:
        # Not in place: another thread may not have read its other half yet.
        where = rotated + (token * HEADS + heads)[:, None] * HEAD_DIM + channels[None, :]
        tl.store(where, x.to(rotated.dtype.element_ty), mask=held & is_query)

    slot = tl.load(slots + token).to(tl.int64)
    kv_head = tl.where(is_value, heads[:, None] - HEADS - KV_HEADS, heads[:, None] - HEADS)
    place = ((slot // BLOCK) * KV_HEADS + kv_head) * BLOCK + slot % BLOCK
    where = cache + tl.where(is_value, to_values, 0) + place * HEAD_DIM + channels[None, :]
    if LIMITED:  # what is larger would become infinite, or no number
        x = x * tl.where(is_value, value_factor, key_factor)
        x = tl.clamp(x, -limit, limit, propagate_nan=tl.PropagateNan.ALL)
    tl.store(where, x.to(cache.dtype.element_ty), mask=held & (heads >= HEADS)[:, None])


def store(
    qkv: torch.Tensor,
    slots: torch.Tensor,
    cache: torch.Tensor,
    *,
    shape: AttentionShape,
    angles: Angles | None,
    norms: tuple[TritonNorm, TritonNorm] | None,
    scales: KVScales = UNSCALED,
) -> torch.Tensor:
    """Writes keys and values; returns the queries, [T, heads, head_dim], heads side by side.

    qkv [T, heads + 2 kv heads, head_dim], which stays as it is; slots [T], any integers; cache as
    ``KVCache`` has it, in the dtype of qkv or in 8 bits (of what has been divided by ``scales``);
    angles as ``rotate_`` takes them; norms of queries' and of keys' heads.
    """
    heads, kv_heads, head_dim = shape.heads, shape.kv_heads, shape.head_dim
    changed = angles is not None or norms is not None
    first = 0 if changed else heads
    rotated = qkv.new_empty((len(qkv), heads, head_dim)) if changed else qkv[:, :heads]
    channels = triton.next_power_of_2(head_dim)
    count = heads + 2 * kv_heads - first
    tile = min(triton.next_power_of_2(count), max(1, _ELEMENTS // channels))
    cosines, sines = angles if angles is not None else (qkv, qkv)
    narrow = cache.dtype.itemsize == 1
    _store[(len(qkv), triton.cdiv(count, tile))](
        qkv,
        qkv.stride(0),
        slots,
        cosines,
        sines,
        cosines.stride(0),
        norms[0].weight if norms is not None else qkv,
        norms[1].weight if norms is not None else qkv,
        norms[0].epsilon if norms is not None else 1.0,
        norms[1].epsilon if norms is not None else 1.0,
        rotated,
        cache,
        cache.stride(0),
        torch.finfo(cache.dtype).max,
        1.0 / scales.keys,
        1.0 / scales.values,
        FIRST=first,
        HEADS=heads,
        KV_HEADS=kv_heads,
        HEAD_DIM=head_dim,
        CHANNELS=channels,
        TURNED=cosines.shape[-1] if angles is not None else 0,
        NORMED=norms is not None,
        LIMITED=narrow,
        BLOCK=BLOCK_TOKENS,
        TILE=tile,
        num_warps=4,
        **early(qkv.device),
    )
    return rotated
