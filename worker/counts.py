"""How often each token stands in a sequence: one row of a table for every sequence that asks.

Runs in the worker. Rows are filled once, when a sequence arrives, and advanced by one token per
step, so no step costs time in proportion to a sequence's length. Knows nothing of penalties.
"""

import torch

from worker.transfers import Transfers

_FIRST_ROWS = 4


class TokenCounts:
    """A table of counts, int32, that grows when rows run out; a row only for those that ask."""

    def __init__(self, vocabulary: int, transfers: Transfers) -> None:
        self._transfers = transfers
        self._table = torch.zeros((0, vocabulary), dtype=torch.int32, device=transfers.device)
        self._free: list[int] = []

    @property
    def rows_in_use(self) -> int:
        """Rows that have been added and not released."""
        return len(self._table) - len(self._free)

    def add(self, ids: list[int]) -> int:
        """A row that holds the counts of ``ids``; its number until ``release``."""
        if not self._free:
            self._grow()
        known = self._transfers.integers(ids)
        row = self._free.pop()
        counts = self._table[row].zero_()
        counts.scatter_add_(0, known, torch.ones_like(known, dtype=counts.dtype))
        return row

    def release(self, row: int) -> None:
        """The row may be given to another sequence."""
        self._free.append(row)

    def increment(self, rows: torch.Tensor, ids: torch.Tensor) -> None:
        """One more of ``ids[i]`` in ``rows[i]``, both [n] int64; each row at most once."""
        self._table[rows, ids] += 1

    def of(self, rows: torch.Tensor) -> torch.Tensor:
        """Counts of these rows ([n] int64): [n, vocabulary] int32, a copy."""
        return self._table[rows]

    def _grow(self) -> None:
        rows, vocabulary = self._table.shape
        wanted = max(_FIRST_ROWS, 2 * rows)
        table = torch.zeros(
            (wanted, vocabulary), dtype=self._table.dtype, device=self._table.device
        )
        table[:rows] = self._table
        self._table = table
        self._free.extend(range(wanted - 1, rows - 1, -1))
