"""Reference kernel: what one step of paged attention reads and writes, worked out on the host.

A step is planned once for each sliding window that layers have, and then run in every layer. With a
window, only the blocks that hold a part of it are read; where no sequence is longer than the window
the plan is the one without. Blocks that have left the window are kept: who leases them does not
know of windows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from common.messages import BLOCK_TOKENS
from worker.inputs import StepInputs
from worker.kernels.reference.paging import CacheRows

_GROUP_BYTES = 8 << 20
"""PERF: gathered keys and values of a group should stay in the processor's cache between being
gathered and being read. With an L3 of 32 MB, 4 to 16 MB do equally well, 1 MB is 20 % slower."""
_WASTE_BLOCKS = 8
"""PERF: padding that costs as much as one more group, about 25 µs per layer."""


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """n decoding sequences of similar length; b blocks hold what the longest of them sees."""

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
    skipped: int = 0  # tokens of the sequence before those gathered
    window: int | None = None  # tokens that each sees, itself included; None: all


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """What one step reads and writes in the cache: the same in every layer of one window."""

    store: torch.Tensor  # [T · 2 · kv heads] int64, rows of single tokens
    cleared: torch.Tensor | None  # int64, rows of whole blocks to be cleared before the store
    decoding: int
    groups: list[DecodeGroup]
    chunks: list[PromptChunk]


class Planner:
    """Plans the steps of one model."""

    def __init__(
        self, kv_heads: int, token_bytes: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._kv_heads = kv_heads
        self._token_bytes = token_bytes
        self._rows = CacheRows(kv_heads, device)
        self._seen = torch.zeros((), dtype=dtype, device=device)
        self._hidden = torch.full((), float("-inf"), dtype=dtype, device=device)

    def plans(
        self, inputs: StepInputs, blocks: int, windows: tuple[int | None, ...]
    ) -> list[AttentionPlan]:
        """A plan for each of the windows, for caches of so many blocks."""
        longest = max(inputs.lengths_host)
        first: AttentionPlan | None = None
        made: dict[int | None, AttentionPlan] = {}
        for window in windows:
            needed = _needed(window, longest)
            if needed in made:
                continue
            if first is None:
                first = made[needed] = self._plan(inputs, blocks, needed)
            else:
                made[needed] = replace(
                    first,
                    groups=self._groups(inputs, blocks, needed),
                    chunks=list(self._chunks(inputs, blocks, needed)),
                )
        return [made[_needed(window, longest)] for window in windows]

    def _plan(self, inputs: StepInputs, blocks: int, window: int | None) -> AttentionPlan:
        return AttentionPlan(
            store=self._rows.of_tokens(inputs.slots, blocks),
            cleared=self._cleared(inputs, blocks),
            decoding=inputs.decode_sequences,
            groups=self._groups(inputs, blocks, window),
            chunks=list(self._chunks(inputs, blocks, window)),
        )

    # --- decoding -----------------------------------------------------------------------------

    def _groups(self, inputs: StepInputs, blocks: int, window: int | None) -> list[DecodeGroup]:
        lengths = inputs.lengths_host[: inputs.decode_sequences]
        spans = lengths if window is None else tuple([_span(length, window) for length in lengths])
        return [
            self._group(inputs, members, spans, blocks, window)
            for members in _similar(spans, self._token_bytes)
        ]

    def _group(
        self,
        inputs: StepInputs,
        members: list[int] | None,
        spans: tuple[int, ...],
        blocks: int,
        window: int | None,
    ) -> DecodeGroup:
        decoding = inputs.decode_sequences
        if members is None:
            sequences = None
            lengths, tables = inputs.lengths[:decoding], inputs.block_tables[:decoding]
        else:
            sequences = torch.tensor(members, device=inputs.lengths.device)
            spans = tuple([spans[number] for number in members])
            lengths = inputs.lengths.index_select(0, sequences)
            tables = inputs.block_tables.index_select(0, sequences)
        width = _blocks_of(max(spans))
        places = torch.arange(width * BLOCK_TOKENS, device=lengths.device)
        if window is None:
            tables = tables[:, :width]
            beyond = unseen = places >= lengths[:, None]
        else:
            first = (lengths - window).clamp_(min=0)[:, None]
            tables, positions = _latest(tables, places, first, width)
            beyond = positions >= lengths[:, None]
            unseen = beyond | (positions < first)
        if _blocks_of(min(spans)) < width:
            tables = torch.where(beyond[:, ::BLOCK_TOKENS], tables[:, :1], tables)
        mask = torch.where(unseen, self._hidden, self._seen)[:, None]
        return DecodeGroup(
            sequences=sequences,
            gather=self._rows.of_blocks(tables, blocks),
            mask=mask.expand(-1, self._kv_heads, -1).reshape(-1, 1, mask.shape[-1]),
        )

    # --- prompts ------------------------------------------------------------------------------

    def _chunks(self, inputs: StepInputs, blocks: int, window: int | None) -> Iterator[PromptChunk]:
        start = decoding = inputs.decode_sequences
        for number in range(decoding, len(inputs.lengths_host)):
            length = inputs.lengths_host[number]
            count = inputs.query_lengths_host[number]
            prefix = length - count
            needed = _needed(window, length)
            gather, skipped = None, 0
            if prefix:
                if needed is not None:
                    skipped = max(0, prefix + 1 - needed) // BLOCK_TOKENS
                table = inputs.block_tables[number : number + 1, skipped : _blocks_of(length)]
                gather = self._rows.of_blocks(table, blocks)
            yield PromptChunk(start, start + count, prefix, gather, skipped * BLOCK_TOKENS, needed)
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


def _latest(
    tables: torch.Tensor, places: torch.Tensor, first: torch.Tensor, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """``width`` blocks of each sequence from that of its position ``first`` [n, 1] on.

    Blocks [n, width], and the positions [n, 16 · width] of their tokens.
    """
    skipped = first.div(BLOCK_TOKENS, rounding_mode="floor")
    columns = skipped + torch.arange(width, device=tables.device)
    columns.clamp_(max=tables.shape[1] - 1)
    return tables.gather(1, columns), skipped * BLOCK_TOKENS + places


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


def _needed(window: int | None, length: int) -> int | None:
    """The window, unless a sequence of this length sees all of itself anyway."""
    return window if window is not None and window < length else None


def _span(length: int, window: int) -> int:
    """Tokens from the first block with a part of the window to the sequence's end."""
    return length - max(0, length - window) // BLOCK_TOKENS * BLOCK_TOKENS


def _blocks_of(tokens: int) -> int:
    return -(-tokens // BLOCK_TOKENS)
