"""How often each token stands in a sequence: one row of a table for every sequence that asks.

Runs in the worker. Rows are filled once, with the next step after a sequence's arrival, and
advanced by one token per step, so no step costs time in proportion to a sequence's length. Knows
nothing of penalties.
"""

import numpy as np
import torch

from worker.parcel import Parcel, Sent

_FIRST_ROWS = 4


class TokenCounts:
    """A table of counts, int32, that grows when rows run out; a row only for those that ask."""

    def __init__(self, vocabulary: int, device: torch.device) -> None:
        self._table = torch.zeros((0, vocabulary), dtype=torch.int32, device=device)
        self._ones = torch.ones(0, dtype=torch.int32, device=device)
        self._free: list[int] = []
        self._new: dict[int, list[int]] = {}
        self._sent: tuple[Sent, Sent] | None = None

    @property
    def table(self) -> torch.Tensor:
        """[rows, vocabulary] int32, contiguous; another one after ``add``."""
        return self._table

    @property
    def rows_in_use(self) -> int:
        """Rows that have been added and not released."""
        return len(self._table) - len(self._free)

    def add(self, ids: list[int]) -> int:
        """A row that will hold the counts of ``ids``; its number until ``release``."""
        if not self._free:
            self._grow()
        row = self._free.pop()
        self._new[row] = ids
        return row

    def release(self, row: int) -> None:
        """The row may be given to another sequence."""
        self._new.pop(row, None)
        self._free.append(row)

    def pack(self, parcel: Parcel) -> None:
        """Add what is not in the table yet; ``settle`` follows when the parcel has been sent."""
        self._sent = None
        if self._new:
            vocabulary = self._table.shape[1]
            places = [np.array(ids, np.int64) + row * vocabulary for row, ids in self._new.items()]
            self._sent = parcel.integers(list(self._new)), parcel.integers(np.concatenate(places))

    def settle(self) -> None:
        """What has been sent is in the table from now on."""
        if self._sent is None:
            return
        rows, places = (sent.tensor for sent in self._sent)
        self._table.index_fill_(0, rows, 0)
        ones = torch.ones_like(places, dtype=self._table.dtype)
        self._table.view(-1).index_add_(0, places, ones)
        self._new.clear()
        self._sent = None

    def places(self, rows: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Where ``ids[i]`` is counted in ``rows[i]``, all [n] int64; each row at most once."""
        return torch.add(ids, rows, alpha=self._table.shape[1])

    def increase(self, places: torch.Tensor, times: int) -> None:
        """So many more of each. Takes no memory."""
        self._table.view(-1).index_add_(0, places, self._ones[: len(places)], alpha=times)

    def _grow(self) -> None:
        rows, vocabulary = self._table.shape
        wanted = max(_FIRST_ROWS, 2 * rows)
        table = torch.zeros(
            (wanted, vocabulary), dtype=self._table.dtype, device=self._table.device
        )
        table[:rows] = self._table
        self._ones = torch.ones(wanted, dtype=table.dtype, device=table.device)
        self._table = table
        self._free.extend(range(wanted - 1, rows - 1, -1))
