"""Reference kernel: attention over the paged KV cache, in plain torch, on any device.

A step is planned once, on the host, and then run in every layer. Decoding sequences are gathered
from their blocks into padded batches of similar length and go through bmm, softmax, bmm on grouped
query heads; every prompt chunk goes through SDPA on its own.

Nothing here reads what the sequence has not written itself (or taken from the prefix cache): pads
of a block table are replaced by the sequence's own first block, and a block is cleared when its
first token is written. So a NaN that another sequence left in memory cannot spread: masking alone
would not stop it, since 0 · NaN is NaN.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from common.messages import BLOCK_TOKENS
from worker.inputs import StepInputs
from worker.kernels.reference.paging import CacheRows

_MASKED_QUERIES = 256
"""A chunk with a prefix needs a mask: [256, length] at a time, never [chunk, length]."""
_GROUP_BYTES = 8 << 20
"""PERF: gathered keys and values of a group should stay in the processor's cache between being
gathered and being read. With an L3 of 32 MB, 4 to 16 MB do equally well, 1 MB is 20 % slower."""
_WASTE_BLOCKS = 8
"""PERF: padding that costs as much as one more group, about 25 µs per layer."""


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """n decoding sequences of similar length; b blocks hold the longest of them."""

    sequences: torch.Tensor | None  # [n] int64, numbers of the sequences; None: all that decode
    gather: torch.Tensor  # [2 · n · kv heads · b] int64, rows of whole blocks
    mask: torch.Tensor  # [n · kv heads, 1, 16 · b], 0 or -inf in the model's dtype


@dataclass(frozen=True, slots=True)
class PromptChunk:
    """Consecutive tokens of one prompt."""

    start: int  # first row of the packed tokens
    stop: int
    prefix: int  # tokens of the sequence before the chunk
    gather: torch.Tensor | None  # [2 · kv heads · b] int64, rows of whole blocks; None: no prefix


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """What one step reads and writes in the cache: the same in every layer."""

    store: torch.Tensor  # [T · 2 · kv heads] int64, rows of single tokens
    cleared: torch.Tensor | None  # int64, rows of whole blocks to be cleared before the store
    decoding: int
    groups: list[DecodeGroup]
    chunks: list[PromptChunk]


class PagedAttention:
    """Attention of one shape, as every layer of a model has it."""

    def __init__(
        self, heads: int, kv_heads: int, head_dim: int, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._heads = heads
        self._kv_heads = kv_heads
        self._head_dim = head_dim
        self._scale = head_dim**-0.5
        self._token_bytes = 2 * kv_heads * head_dim * dtype.itemsize
        self._rows = CacheRows(kv_heads, device)
        self._seen = torch.zeros((), dtype=dtype, device=device)
        self._hidden = torch.full((), float("-inf"), dtype=dtype, device=device)

    def plan(self, inputs: StepInputs, blocks: int) -> AttentionPlan:
        """Plan a step for caches of so many blocks."""
        decoding = inputs.decode_sequences
        numbers = _similar(inputs.lengths_host[:decoding], self._token_bytes)
        return AttentionPlan(
            store=self._rows.of_tokens(inputs.slots, blocks),
            cleared=self._cleared(inputs, blocks),
            decoding=decoding,
            groups=[self._group(inputs, members, blocks) for members in numbers],
            chunks=list(self._chunks(inputs, blocks)),
        )

    def attend(self, qkv: torch.Tensor, cache: torch.Tensor, step: AttentionPlan) -> torch.Tensor:
        """Writes the step's keys and values, then attends: causal, each sequence to itself.

        qkv [T, heads + 2 · kv heads, head_dim], rotated; cache [2, blocks, kv heads, 16, head_dim].
        Returns [T, heads · head_dim]. Softmax is in float32, whatever the dtype.
        """
        heads = self._heads
        if step.cleared is not None:
            cache.view(-1, BLOCK_TOKENS * self._head_dim).index_fill_(0, step.cleared, 0.0)
        written = qkv[:, heads:].reshape(-1, self._head_dim)
        cache.view(-1, self._head_dim).index_copy_(0, step.store, written)
        if not step.chunks and step.groups[0].sequences is None:
            return self._decode(qkv[:, :heads], cache, step.groups[0])
        output = qkv.new_empty((len(qkv), heads * self._head_dim))
        queries = qkv[: step.decoding, :heads]
        for group in step.groups:
            if group.sequences is None:
                output[: step.decoding] = self._decode(queries, cache, group)
            else:
                members = queries.index_select(0, group.sequences)
                output.index_copy_(0, group.sequences, self._decode(members, cache, group))
        for chunk in step.chunks:
            rows = qkv[chunk.start : chunk.stop]
            output[chunk.start : chunk.stop] = self._prefill(rows, cache, chunk)
        return output

    # --- decoding -----------------------------------------------------------------------------

    def _decode(
        self, queries: torch.Tensor, cache: torch.Tensor, group: DecodeGroup
    ) -> torch.Tensor:
        """One query per sequence: [n, heads, head_dim] to [n, heads · head_dim].

        PERF: the query heads of a KV head are the rows of one matrix; SDPA with enable_gqa is 9 to
        34 times slower on CPUs.
        """
        count = len(queries)
        pairs = count * self._kv_heads
        keys, values = self._gather(cache, group.gather, pairs)
        grouped = queries.reshape(pairs, -1, self._head_dim)
        scores = torch.baddbmm(group.mask, grouped, keys.transpose(1, 2), alpha=self._scale)
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(values.dtype)
        return torch.bmm(weights, values).view(count, -1)

    def _gather(self, cache: torch.Tensor, rows: torch.Tensor, pairs: int) -> torch.Tensor:
        """Whole blocks: [2, pairs of sequence and KV head, 16 · b, head_dim], a copy."""
        gathered = cache.view(-1, BLOCK_TOKENS * self._head_dim).index_select(0, rows)
        return gathered.view(2, pairs, -1, self._head_dim)

    def _group(self, inputs: StepInputs, members: list[int] | None, blocks: int) -> DecodeGroup:
        decoding = inputs.decode_sequences
        if members is None:
            sequences = None
            lengths_host = inputs.lengths_host[:decoding]
            lengths, tables = inputs.lengths[:decoding], inputs.block_tables[:decoding]
        else:
            sequences = torch.tensor(members, device=inputs.lengths.device)
            lengths_host = tuple([inputs.lengths_host[number] for number in members])
            lengths = inputs.lengths.index_select(0, sequences)
            tables = inputs.block_tables.index_select(0, sequences)
        width = _blocks_of(max(lengths_host))
        beyond = torch.arange(width * BLOCK_TOKENS, device=lengths.device) >= lengths[:, None]
        tables = tables[:, :width]
        if _blocks_of(min(lengths_host)) < width:
            tables = torch.where(beyond[:, ::BLOCK_TOKENS], tables[:, :1], tables)
        mask = torch.where(beyond, self._hidden, self._seen)[:, None]
        return DecodeGroup(
            sequences=sequences,
            gather=self._rows.of_blocks(tables, blocks),
            mask=mask.expand(-1, self._kv_heads, -1).reshape(-1, 1, mask.shape[-1]),
        )

    # --- prompts ------------------------------------------------------------------------------

    def _prefill(self, rows: torch.Tensor, cache: torch.Tensor, chunk: PromptChunk) -> torch.Tensor:
        """A chunk, [chunk, heads + 2 · kv heads, head_dim] to [chunk, heads · head_dim].

        The KV heads are the batch of SDPA: [kv heads, queries per KV head, tokens, head_dim].
        """
        heads, kv_heads, head_dim = self._heads, self._kv_heads, self._head_dim
        count = len(rows)
        queries = rows[:, :heads].view(count, kv_heads, -1, head_dim).permute(1, 2, 0, 3)
        if chunk.gather is None:
            keys, values = rows[:, heads:].view(count, 2, kv_heads, head_dim).permute(1, 2, 0, 3)
            attended = self._sdpa(queries, keys, values, None)
        else:
            keys, values = self._gather(cache, chunk.gather, kv_heads)
            attended = torch.cat(
                [
                    self._masked(queries, keys, values, chunk, first)
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
    ) -> torch.Tensor:
        """Queries from ``first`` on, against the prefix and what the chunk has before them."""
        last = min(first + _MASKED_QUERIES, chunk.stop - chunk.start)
        length = chunk.prefix + last
        positions = torch.arange(length, device=queries.device)
        seen = positions <= positions[chunk.prefix + first :, None]
        return self._sdpa(queries[:, :, first:last], keys[:, :length], values[:, :length], seen)

    def _sdpa(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        seen: torch.Tensor | None,
    ) -> torch.Tensor:
        """Without ``seen`` (bool [queries, keys]) causal; keys and values [kv heads, …]."""
        shape = (-1, queries.shape[1], -1, -1)
        return F.scaled_dot_product_attention(
            queries,
            keys.unsqueeze(1).expand(shape),
            values.unsqueeze(1).expand(shape),
            attn_mask=seen,
            is_causal=seen is None,
            scale=self._scale,
        )

    def _chunks(self, inputs: StepInputs, blocks: int) -> Iterator[PromptChunk]:
        start = decoding = inputs.decode_sequences
        for number in range(decoding, len(inputs.lengths_host)):
            length = inputs.lengths_host[number]
            count = inputs.query_lengths_host[number]
            gather = None
            if length > count:
                table = inputs.block_tables[number : number + 1, : _blocks_of(length)]
                gather = self._rows.of_blocks(table, blocks)
            yield PromptChunk(start, start + count, length - count, gather)
            start += count

    # --- blocks -------------------------------------------------------------------------------

    def _cleared(self, inputs: StepInputs, blocks: int) -> torch.Tensor | None:
        """Blocks whose first token this step writes but not their last: the rest is to be zero.

        A sequence enters blocks in order, so only its last block of the step can be such a one.
        """
        entered = [
            number
            for number, (length, count) in enumerate(
                zip(inputs.lengths_host, inputs.query_lengths_host, strict=True)
            )
            if 0 < length % BLOCK_TOKENS <= count
        ]
        if not entered:
            return None
        numbers = torch.tensor(entered, device=inputs.lengths.device)
        last = inputs.lengths.index_select(0, numbers).sub_(1)
        columns = last.div_(BLOCK_TOKENS, rounding_mode="floor").unsqueeze(1)
        tables = inputs.block_tables.index_select(0, numbers).gather(1, columns)
        return self._rows.of_blocks(tables, blocks)


def _similar(lengths: tuple[int, ...], token_bytes: int) -> Iterator[list[int] | None]:
    """Sequences that are worth padding to a common length, longest first; None: all, in order.

    A group ends where one more member would make the padding too large, or the gathered bytes.
    """
    if not lengths:
        return
    widths = [_blocks_of(length) for length in lengths]
    limit = max(1, _GROUP_BYTES // (token_bytes * BLOCK_TOKENS))
    if _fits(max(widths) * len(widths), sum(widths), limit):
        yield None
        return
    members: list[int] = []
    widest = used = 0
    for number in sorted(range(len(widths)), key=widths.__getitem__, reverse=True):
        width = widths[number]
        if members and not _fits(widest * (len(members) + 1), used + width, limit):
            yield members
            members, used = [], 0
        if not members:
            widest = width
        members.append(number)
        used += width
    yield members


def _fits(padded: int, used: int, limit: int) -> bool:
    return padded <= limit and padded - used <= _WASTE_BLOCKS + used // 4


def _blocks_of(tokens: int) -> int:
    return -(-tokens // BLOCK_TOKENS)
