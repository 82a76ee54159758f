"""Examples to rows of tokens: tokenize, weigh, and lay whole examples side by side.

No example is cut: half an answer without its question would teach the model to guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tools.builtin_model.chat import PAD, SPECIAL_TOKENS
from tools.builtin_model.data import Example

SHORT_TOKENS: Final = 128
LONG_TOKENS: Final = 512
_LONG_SHARE: Final = 24  # every so many-th short example goes into a long row too
_OPEN_ROWS: Final = 24
_PAD_ID: Final = SPECIAL_TOKENS.index(PAD)


@dataclass(frozen=True)
class Row:
    """One training sequence."""

    ids: NDArray[np.int32]  # [length]
    weights: NDArray[np.float32]  # [length], weight of predicting each id; 0 for padding


def encode(tokenizer: Tokenizer, batch: list[Example]) -> list[Row]:
    """Tokenize examples whose special tokens are written out, and weigh each token."""
    encodings = tokenizer.encode_batch([e.text for e in batch], add_special_tokens=False)
    rows = []
    for example, encoding in zip(batch, encodings, strict=True):
        ends = np.cumsum([len(text) for text, _ in example.segments])
        starts = np.array([start for start, _ in encoding.offsets])
        weights = np.array([weight for _, weight in example.segments], dtype=np.float32)
        ids = np.array(encoding.ids, dtype=np.int32)
        rows.append(Row(ids, weights[np.searchsorted(ends, starts, side="right")]))
    return rows


class Packer:
    """Fills rows of one length, whole examples only, the fullest row that has room first."""

    def __init__(self, length_tokens: int) -> None:
        self._length_tokens = length_tokens
        self._open: list[list[Row]] = []
        self._used: list[int] = []

    def add(self, row: Row) -> Row | None:
        """Place one example; returns a finished row when one had to make room."""
        size = len(row.ids)
        fitting = [i for i, used in enumerate(self._used) if used + size <= self._length_tokens]
        if fitting:
            best = max(fitting, key=self._used.__getitem__)
            self._open[best].append(row)
            self._used[best] += size
            return None
        finished = self._close() if len(self._open) == _OPEN_ROWS else None
        self._open.append([row])
        self._used.append(size)
        return finished

    def _close(self) -> Row:
        fullest = max(range(len(self._used)), key=self._used.__getitem__)
        parts, used = self._open.pop(fullest), self._used.pop(fullest)
        space = self._length_tokens - used
        ids = [part.ids for part in parts] + [np.full(space, _PAD_ID, dtype=np.int32)]
        weights = [part.weights for part in parts] + [np.zeros(space, dtype=np.float32)]
        return Row(np.concatenate(ids), np.concatenate(weights))


def packed_rows(tokenizer: Tokenizer, source: Iterable[Example]) -> Iterator[Row]:
    """Rows of `SHORT_TOKENS` or `LONG_TOKENS` tokens; examples beyond the long row are dropped."""
    short, long = Packer(SHORT_TOKENS), Packer(LONG_TOKENS)
    stream = iter(source)
    seen = 0
    while batch := list(islice(stream, 512)):
        for row in encode(tokenizer, batch):
            seen += 1
            fits_short = len(row.ids) <= SHORT_TOKENS and seen % _LONG_SHARE != 0
            if len(row.ids) > LONG_TOKENS:
                continue
            finished = (short if fits_short else long).add(row)
            if finished is not None:
                yield finished
