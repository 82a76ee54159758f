"""How often each token stands in a sequence: one row of a table for every sequence that asks.

Runs in the worker. Rows are filled once, with the next step after a sequence's arrival, and
advanced by the tokens of each step, so no step costs time in proportion to a sequence's length.
Tokens are counted where they were chosen, on the device, or go there with the next step if the host
knows them. Knows nothing of penalties.
"""

import numpy as np
import torch

from worker.parcel import Parcel, Sent
from worker.transfers import Integers

_FIRST_ROWS = 4


class TokenCounts:
    """A table of counts, int32, that grows when rows run out; a row only for those that ask."""

    def __init__(self, vocabulary: int, device: torch.device) -> None:
        self._table = torch.zeros((0, vocabulary), dtype=torch.int32, device=device)
        self._ones = torch.ones(0, dtype=torch.int32, device=device)
        self._free: list[int] = []
        self._new: dict[int, list[int]] = {}
        self._more: dict[int, list[int]] = {}
        self._branches: dict[int, tuple[int, list[int]]] = {}
        self._sent: list[Sent] | None = None

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
        row = self._take_row()
        self._new[row] = ids
        return row

    def branch(self, row: int, ids: list[int]) -> int:
        """A row that will hold the counts of another one and of ``ids``, until ``release``."""
        branch = self._take_row()
        self._branches[branch] = row, ids
        return branch

    def append(self, row: int, ids: list[int]) -> None:
        """Count these, too, from the next step on."""
        self._more.setdefault(row, []).extend(ids)

    def release(self, row: int) -> None:
        """The row may be given to another sequence."""
        for waiting in (self._new, self._more, self._branches):
            waiting.pop(row, None)
        self._free.append(row)

    def pack(self, parcel: Parcel) -> None:
        """Add what is not in the table yet; ``settle`` follows when the parcel has been sent."""
        self._sent = None
        if self._new or self._more or self._branches:
            branches = {row: ids for row, (_, ids) in self._branches.items()}
            sources = [source for source, _ in self._branches.values()]
            rows = [parcel.integers(row) for row in (list(self._new), list(branches), sources)]
            counted = [self._flat(ids) for ids in (self._new, self._more, branches)]
            self._sent = rows + [parcel.integers(places) for places in counted]

    def settle(self) -> None:
        """What has been sent is in the table from now on. Where there is no memory, what is not in
        it yet is sent again.
        """
        if self._sent is None:
            return
        new, branches, sources, of_new, more, of_branches = [sent.tensor for sent in self._sent]
        if self._new:
            self._table.index_fill_(0, new, 0)
            self._count(of_new)
            self._new.clear()
        if self._more:
            self._count(more)
            self._more.clear()
        if self._branches:
            self._table.index_copy_(0, branches, self._table.index_select(0, sources))
            self._count(of_branches)
            self._branches.clear()
        self._sent = None

    def places(self, rows: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Where ``ids[i]`` is counted in ``rows[i]``, all [n] int64; each row at most once."""
        return torch.add(ids, rows, alpha=self._table.shape[1])

    def increase(self, places: torch.Tensor) -> None:
        """One more of each. Takes no memory."""
        self._table.view(-1).index_add_(0, places, self._ones[: len(places)])

    def _flat(self, counted: dict[int, list[int]]) -> Integers:
        """Where all of these are counted, [n] int64."""
        vocabulary = self._table.shape[1]
        places = [np.array(ids, np.int64) + row * vocabulary for row, ids in counted.items()]
        return np.concatenate([np.empty(0, np.int64), *places])

    def _count(self, places: torch.Tensor) -> None:
        ones = torch.ones_like(places, dtype=self._table.dtype)
        self._table.view(-1).index_add_(0, places, ones)

    def _take_row(self) -> int:
        if not self._free:
            self._grow()
        return self._free.pop()

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
