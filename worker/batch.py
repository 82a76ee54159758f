"""The step's inputs: from turns and block tables to the tensors that the model reads.

Runs in the worker. Owns the block tables, on the host: a row per sequence, written when blocks are
leased, never rebuilt. PERF: in numpy, whose operations on so few numbers cost a third of torch's.
Knows nothing of sampling or messages.
"""

from dataclasses import dataclass

import numpy as np
import torch

from common.messages import BLOCK_TOKENS
from worker.inputs import StepInputs
from worker.transfers import Integers
from worker.turns import Part


class BlockTables:
    """The block of tokens 16 i … 16 i + 15 of each sequence: [rows, width] int64, padded with 0."""

    def __init__(self) -> None:
        self._table: Integers = np.zeros((8, 8), dtype=np.int64)
        self._used: list[int] = [0] * 8
        self._free = list(range(7, -1, -1))

    @property
    def rows_in_use(self) -> int:
        """Rows that have been added and not released."""
        return len(self._used) - len(self._free)

    def add(self, blocks: list[int]) -> int:
        """A row for a sequence with these blocks; its number until ``release``."""
        if not self._free:
            self._resize(2 * len(self._table), self._table.shape[1])
        row = self._free.pop()
        self.append(row, blocks)
        return row

    def append(self, row: int, blocks: list[int]) -> None:
        """More blocks for a sequence."""
        if not blocks:
            return
        used = self._used[row]
        after = used + len(blocks)
        if after > self._table.shape[1]:
            self._resize(len(self._table), max(after, 2 * self._table.shape[1]))
        self._table[row, used:after] = blocks
        self._used[row] = after

    def release(self, row: int) -> None:
        """The row may be given to another sequence."""
        self._table[row, : self._used[row]] = 0
        self._used[row] = 0
        self._free.append(row)

    def rows(self, rows: list[int], width: int) -> Integers:
        """The first ``width`` blocks of these rows: [S, width], a copy."""
        return self._table[rows, :width]

    def _resize(self, rows: int, width: int) -> None:
        old_rows, old_width = self._table.shape
        table: Integers = np.zeros((rows, width), dtype=np.int64)
        table[:old_rows, :old_width] = self._table
        self._table = table
        self._used.extend([0] * (rows - old_rows))
        self._free.extend(range(rows - 1, old_rows - 1, -1))


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which hidden rows a step returns, in order: next tokens, after drafts, prompt tokens."""

    next_tokens: list[Part]
    """Parts whose next token is to be chosen: rows 0 … n - 1."""
    prompts: list[tuple[Part, list[int]]]
    """Parts whose prompt is scored: for each of their rows, the token that follows it."""
    drafts: int = 0
    """Rows n … n + drafts - 1: one after each draft of these parts."""


def wanted_rows(parts: list[Part]) -> tuple[Wanted, list[int]]:
    """What a step is to return, and those rows of its packed tokens."""
    next_tokens: list[Part] = []
    rows: list[int] = []
    guessed: list[int] = []
    scored: list[int] = []
    prompts: list[tuple[Part, list[int]]] = []
    first = 0
    for part in parts:
        if part.yields:
            next_tokens.append(part)
            rows.append(first + part.tokens - 1 - len(part.drafts))
            if part.drafts:
                guessed.extend(range(rows[-1] + 1, first + part.tokens))
        if part.sequence.announce and part.sequence.wants_prompt_logprobs:
            last = min(part.end, part.sequence.prompt_length - 1)
            following = part.sequence.ids[part.start + 1 : last + 1]
            if following:
                prompts.append((part, following))
                scored.extend(range(first, first + len(following)))
        first += part.tokens
    return Wanted(next_tokens, prompts, len(guessed)), rows + guessed + scored


def tokens_of(parts: list[Part]) -> list[int]:
    """The tokens of these, packed; drafts stand behind all that is known."""
    tokens: list[int] = []
    for part in parts:
        tokens += part.sequence.ids[part.start : part.end]
        tokens += part.drafts
    return tokens


@dataclass(frozen=True, slots=True)
class Assembly:
    """A step's inputs on the host."""

    arrays: tuple[Integers, ...]
    """What goes to the device: six, as ``inputs`` takes them back."""
    lengths: tuple[int, ...]
    counts: tuple[int, ...]
    decoding: int
    table_rows: tuple[int, ...]
    adapters: tuple[int, ...] = ()
    """As ``StepInputs.adapters_host``."""

    def inputs(self, tensors: list[torch.Tensor]) -> StepInputs:
        """The same on the device."""
        return StepInputs(
            token_ids=tensors[0],
            positions=tensors[1],
            slots=tensors[2],
            block_tables=tensors[3],
            lengths=tensors[4],
            lengths_host=self.lengths,
            query_lengths_host=self.counts,
            decode_sequences=self.decoding,
            logit_rows=tensors[5],
            sequences_host=self.table_rows,
            adapters_host=self.adapters,
        )


def assemble(
    parts: list[Part],
    decoding: int,
    tokens: list[int],
    logit_rows: list[int],
    tables: BlockTables,
    adapters: tuple[int, ...] = (),
) -> Assembly:
    """One forward pass over the ``tokens`` of ``parts``, of which the first ``decoding`` decode."""
    counts = tuple([part.tokens for part in parts])
    lengths_host = tuple([part.end for part in parts])
    lengths = np.array(lengths_host, dtype=np.int64)
    table_rows = tuple([part.sequence.table_row for part in parts])
    block_tables = tables.rows([*table_rows], -(-max(lengths_host) // BLOCK_TOKENS))
    if decoding == len(parts):
        positions = lengths - 1
        number = np.arange(len(parts))
    else:
        number = np.repeat(np.arange(len(parts)), counts)
        # The last token of a part is at its length - 1, and at the part's end among the rows.
        positions = np.arange(len(tokens)) + (lengths - np.cumsum(counts))[number]
    slots = block_tables[number, positions // BLOCK_TOKENS] * BLOCK_TOKENS
    slots += positions % BLOCK_TOKENS
    arrays = (
        np.array(tokens, dtype=np.int64),
        positions,
        slots,
        block_tables,
        lengths,
        np.array(logit_rows, dtype=np.int64),
    )
    return Assembly(arrays, lengths_host, counts, decoding, table_rows, adapters)
