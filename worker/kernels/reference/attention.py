"""Reference kernel: attention over the paged KV cache, in plain torch, on any device.

A step is planned once (``planning``), and then run in every layer. Decoding sequences are gathered
from their blocks into padded batches of similar length and go through bmm, softmax, bmm on grouped
query heads; every prompt chunk goes through SDPA on its own.

Nothing here reads what the sequence has not written itself (or taken from the prefix cache): pads
of a block table are replaced by the sequence's own first block, and a block is cleared when its
first token is written. So a NaN that another sequence left in memory cannot spread: masking alone
would not stop it, since 0 · NaN is NaN.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from common.messages import BLOCK_TOKENS
from worker.inputs import StepInputs
from worker.kernels.reference.norm import HeadNorms
from worker.kernels.reference.planning import AttentionPlan, DecodeGroup, Planner, PromptChunk
from worker.kernels.reference.rotary import rotate_

Angles = tuple[torch.Tensor, torch.Tensor]
"""Cosines and sines, each [T, 1, channels], as ``rotate_`` takes them."""

_MASKED_QUERIES = 256
"""A chunk with a prefix needs a mask: [256, length] at a time, never [chunk, length]."""


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Heads of an attention layer, and what their scores go through."""

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    cap: float | None = None
    """Scores s become cap · tanh(s / cap) (Gemma 2)."""


@dataclass(frozen=True, slots=True)
class KVScales:
    """Of a layer's cache of 8 bits: what is stored, times these, is what is meant.

    Calibrated, they bring keys and values to where 8 bits are exact.
    """

    keys: float = 1.0
    values: float = 1.0


UNSCALED = KVScales()
"""Of layers without any, and of caches in the model's dtype."""


class PagedAttention:
    """Attention of one shape, as every layer of a model has it."""

    capturable = False

    def __init__(self, shape: AttentionShape, *, device: torch.device, dtype: torch.dtype) -> None:
        self._heads = shape.heads
        self._kv_heads = shape.kv_heads
        self._head_dim = shape.head_dim
        self._scale = shape.scale
        self._cap = shape.cap
        self._dtype = dtype
        token_bytes = 2 * shape.kv_heads * shape.head_dim * dtype.itemsize
        self._planner = Planner(shape.kv_heads, token_bytes, device, dtype)

    def plans(
        self, inputs: StepInputs, blocks: int, windows: tuple[int | None, ...] = (None,)
    ) -> list[AttentionPlan]:
        """Plan a step for caches of so many blocks: for each of the layers' sliding windows.

        A window is how many of the latest tokens one sees, itself included; None: all.
        """
        return self._planner.plans(inputs, blocks, windows)

    def attend(
        self,
        qkv: torch.Tensor,
        cache: torch.Tensor,
        step: AttentionPlan,
        angles: Angles | None = None,
        norms: HeadNorms | None = None,
        scales: KVScales = UNSCALED,
    ) -> torch.Tensor:
        """Writes the step's keys and values, then attends: causal, each sequence to itself.

        qkv [T, heads + 2 · kv heads, head_dim], of which queries and keys are first normalised and
        rotated in place if there are ``norms`` and ``angles``; cache [2, blocks, kv heads, 16,
        head_dim]. Returns [T, heads · head_dim]. Softmax is in float32, whatever the dtype.
        The cache may be narrower than ``qkv``: of bfloat16, or of 8 bits, whose keys and values
        are divided by ``scales``; what it cannot hold is clamped.
        """
        heads, scale = self._heads, self._scale * scales.keys
        if norms is not None:
            norms.apply_(qkv, heads, self._kv_heads)
        if angles is not None:
            rotate_(qkv[:, : heads + self._kv_heads, : angles[0].shape[-1]], *angles)
        self._store(qkv[:, heads:], cache, step, scales)
        if not step.chunks and step.groups[0].sequences is None:
            attended = self._decode(qkv[:, :heads], cache, step.groups[0], scale)
            return attended if scales.values == 1.0 else attended.mul_(scales.values)
        output = qkv.new_empty((len(qkv), heads * self._head_dim))
        queries = qkv[: step.decoding, :heads]
        for group in step.groups:
            if group.sequences is None:
                output[: step.decoding] = self._decode(queries, cache, group, scale)
            else:
                members = queries.index_select(0, group.sequences)
                output.index_copy_(0, group.sequences, self._decode(members, cache, group, scale))
        for chunk in step.chunks:
            rows = qkv[chunk.start : chunk.stop]
            output[chunk.start : chunk.stop] = self._prefill(rows, cache, chunk, scale)
        return output if scales.values == 1.0 else output.mul_(scales.values)

    def _store(
        self, written: torch.Tensor, cache: torch.Tensor, step: AttentionPlan, scales: KVScales
    ) -> None:
        """Keys and values [T, 2 · kv heads, head_dim]; scaled and rounded in place as the cache is.

        So a chunk that attends to itself sees what later ones will read.
        """
        rows = written.reshape(-1, self._head_dim)
        if cache.dtype != self._dtype:
            largest = torch.finfo(cache.dtype).max  # more would be infinite, or no number
            divided = rows if scales == UNSCALED else _divided(written, scales)
            narrow = divided.clamp(-largest, largest).to(cache.dtype).view(-1, self._head_dim)
            written.copy_(narrow.to(self._dtype).view(written.shape))
            rows, cache = _movable(narrow), _movable(cache)
        if step.cleared is not None:
            cache.view(-1, BLOCK_TOKENS * self._head_dim).index_fill_(0, step.cleared, 0)
        cache.view(-1, self._head_dim).index_copy_(0, step.store, rows)

    # --- decoding -----------------------------------------------------------------------------

    def _decode(
        self, queries: torch.Tensor, cache: torch.Tensor, group: DecodeGroup, scale: float
    ) -> torch.Tensor:
        """One query per sequence: [n, heads, head_dim] to [n, heads · head_dim].

        PERF: the query heads of a KV head are the rows of one matrix; SDPA with enable_gqa is 9 to
        34 times slower on CPUs.
        """
        count = len(queries)
        pairs = count * self._kv_heads
        keys, values = self._gather(cache, group.gather, pairs)
        grouped = queries.reshape(pairs, -1, self._head_dim)
        if self._cap is None:
            scores = torch.baddbmm(group.mask, grouped, keys.transpose(1, 2), alpha=scale)
        else:
            scores = self._capped(torch.bmm(grouped, keys.transpose(1, 2)), scale, self._cap)
            scores.add_(group.mask)
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(values.dtype)
        return torch.bmm(weights, values).view(count, -1)

    def _capped(self, products: torch.Tensor, scale: float, cap: float) -> torch.Tensor:
        """Scores from products of queries and keys, in place."""
        return products.mul_(scale / cap).tanh_().mul_(cap)

    def _gather(self, cache: torch.Tensor, rows: torch.Tensor, pairs: int) -> torch.Tensor:
        """Whole blocks: [2, pairs of sequence and KV head, 16 · b, head_dim], a copy."""
        blocks = _movable(cache).view(-1, BLOCK_TOKENS * self._head_dim)
        gathered = blocks.index_select(0, rows).view(cache.dtype).to(self._dtype)
        return gathered.view(2, pairs, -1, self._head_dim)

    # --- prompts ------------------------------------------------------------------------------

    def _prefill(
        self, rows: torch.Tensor, cache: torch.Tensor, chunk: PromptChunk, scale: float
    ) -> torch.Tensor:
        """A chunk, [chunk, heads + 2 · kv heads, head_dim] to [chunk, heads · head_dim].

        The KV heads are the batch of SDPA: [kv heads, queries per KV head, tokens, head_dim].
        """
        heads, kv_heads, head_dim = self._heads, self._kv_heads, self._head_dim
        count = len(rows)
        queries = rows[:, :heads].view(count, kv_heads, -1, head_dim).permute(1, 2, 0, 3)
        if chunk.gather is None:
            keys, values = rows[:, heads:].view(count, 2, kv_heads, head_dim).permute(1, 2, 0, 3)
        else:
            keys, values = self._gather(cache, chunk.gather, kv_heads)
        if chunk.gather is None and chunk.window is None and self._cap is None:
            attended = self._sdpa(queries, keys, values, None, scale)
        else:
            attended = torch.cat(
                [
                    self._masked(queries, keys, values, chunk, first, scale)
                    for first in range(0, count, _MASKED_QUERIES)
                ],
                dim=2,
            )
        return attended.permute(2, 0, 1, 3).reshape(count, heads * head_dim)

    def _masked(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        chunk: PromptChunk,
        first: int,
        scale: float,
    ) -> torch.Tensor:
        """Queries from ``first`` on, against the prefix and what the chunk has before them."""
        last = min(first + _MASKED_QUERIES, chunk.stop - chunk.start)
        oldest = chunk.skipped
        if chunk.window is not None:
            oldest = max(oldest, chunk.prefix + first + 1 - chunk.window)
        positions = torch.arange(oldest, chunk.prefix + last, device=queries.device)
        own = positions[chunk.prefix + first - oldest :, None]
        seen = positions <= own
        if chunk.window is not None:
            seen &= positions > own - chunk.window
        span = slice(oldest - chunk.skipped, chunk.prefix + last - chunk.skipped)
        queries, keys, values = queries[:, :, first:last], keys[:, span], values[:, span]
        if self._cap is None:
            return self._sdpa(queries, keys, values, seen, scale)
        scores = self._capped(queries @ keys.unsqueeze(1).transpose(2, 3), scale, self._cap)
        scores.masked_fill_(~seen, float("-inf"))
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(values.dtype)
        return weights @ values.unsqueeze(1)

    def _sdpa(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        seen: torch.Tensor | None,
        scale: float,
    ) -> torch.Tensor:
        """Without ``seen`` (bool [queries, keys]) causal; keys and values [kv heads, …]."""
        shape = (-1, queries.shape[1], -1, -1)
        return F.scaled_dot_product_attention(
            queries,
            keys.unsqueeze(1).expand(shape),
            values.unsqueeze(1).expand(shape),
            attn_mask=seen,
            is_causal=seen is None,
            scale=scale,
        )


def _movable(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory in a type that torch moves: of 8-bit floats it moves bytes only."""
    return tensor.view(torch.uint8) if tensor.dtype.itemsize == 1 else tensor


def _divided(written: torch.Tensor, scales: KVScales) -> torch.Tensor:
    """Keys and values [T, 2 · kv heads, head_dim] as a cache of 8 bits stores them, in float32."""
    keys, values = written.float().chunk(2, dim=1)
    return torch.cat((keys * (1.0 / scales.keys), values * (1.0 / scales.values)), dim=1)
