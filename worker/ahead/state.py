"""What the device keeps of the sequences, so that a step needs nothing from the host to go on.

Runs in the worker. One tensor of int64, cut into columns: the slots of the rows that decode, how
many drafts lead up to each, the last of these, and which adapters they have; for each slot its last
token, how many tokens are known, how many of them were its prompt; and its row of the block table.
The host notes changes, which go with a step's parcel and are put into place by one scatter; when
nothing has changed, nothing is sent. Tokens and lengths advance on the device alone, but after
drafts, which the host verifies.

Slot 0 is nobody's: its one token is of block 0, where padding writes. Sequences that have been
given row r of the host's block tables have slot r + 1.
"""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
import torch

from worker.ahead.order import StateChanges
from worker.batch import BlockTables
from worker.interfaces import AdapterPlans
from worker.kernels.reference.gather import DecodeRows
from worker.parcel import Sent
from worker.speculation.speculation import MOST_ROWS

_OF_ROWS, _OF_SLOTS = 3, 3
"""Numbers that are kept of a row that decodes, and of a slot beside its blocks."""
_EVEN = 2
"""What is kept of rows begins at a multiple of 16 bytes: kernels are compiled anew for others."""


class SlotState:
    """The tensor, and the changes that have not been sent yet."""

    def __init__(
        self,
        slots: int,
        width: int,
        rows: int,
        device: torch.device,
        plans: AdapterPlans | None = None,
    ) -> None:
        """For so many sequences of ``width`` blocks, ``rows`` of which may decode in one step.

        ``plans``: the model's, if it has adapters.
        """
        self._device = device
        self._plans = plans
        self._rows = rows
        self._changes: dict[int, int] = {}
        self._drafted = range(0)
        """The rows after drafts."""
        self.generation = 0
        """Another one: the tensors are others, too."""
        self._lay_out(slots + 1, width)

    def _lay_out(self, slots: int, width: int) -> None:
        self.slots, self.width = slots, width
        self._rows = max(self._rows, slots + MOST_ROWS)
        rows = -(-self._rows // _EVEN) * _EVEN
        sizes = [rows] * _OF_ROWS + [self._room(self._rows)] + [slots] * _OF_SLOTS
        self._ends: list[int] = np.cumsum(sizes).tolist()
        self._offsets, self._drafts, self._plan, *of_slots, self._tables = self._ends
        self._last, self._known, self._prompt = of_slots
        numbers = self._tables + slots * width
        self._all = torch.zeros(numbers, dtype=torch.int64, device=self._device)
        *self._columns, tables = torch.split(self._all, [*sizes, slots * width])
        self.rows = self._columns[0]  # [rows] slots of the decoding sequences, then zeros
        self._adapters = self._columns[_OF_ROWS]  # [room] of all rows' adapters
        # [slots] each; tokens: the last one, how many are known with it, how many were the prompt
        self.last_tokens, self.known, self.prompts = self._columns[-_OF_SLOTS:]
        self.tables = tables.view(slots, width)  # blocks, padded with 0
        self.known[:1].fill_(1)
        self._ones = torch.ones_like(self.rows)

    def enter(self, slot: int, last_token: int, known: int, prompt: int) -> None:
        """A sequence begins, or goes on, here."""
        self._changes[self._last + slot] = last_token
        self._changes[self._known + slot] = known
        self._changes[self._prompt + slot] = prompt

    def set_blocks(self, slot: int, first: int, blocks: Sequence[int]) -> None:
        """Of a slot, from column ``first`` on."""
        start = self._tables + slot * self.width + first
        self._changes.update(zip(range(start, start + len(blocks)), blocks, strict=True))

    def set_rows(
        self, slots: Sequence[int], size: int, drafts: Sequence[tuple[int, int]] = ()
    ) -> None:
        """The first ``size`` rows decode, those beyond ``slots`` for nobody.

        ``drafts``: of the last ones of ``slots``, how many tokens lead up to each from the one that
        is known, and the last of these.
        """
        self._changes.update(enumerate(slots))
        self._changes.update(dict.fromkeys(range(len(slots), size), 0))
        self._changes.update(dict.fromkeys([self._offsets + row for row in self._drafted], 0))
        self._drafted = range(len(slots) - len(drafts), len(slots))
        for row, (offset, token) in zip(self._drafted, drafts, strict=True):
            self._changes[self._offsets + row] = offset
            self._changes[self._drafts + row] = token

    def decode_rows(self, size: int) -> DecodeRows:
        """The first ``size`` of them."""
        return DecodeRows(*[column[:size] for column in self._columns[:_OF_ROWS]])

    def set_adapters(self, adapters: Sequence[int], size: int) -> None:
        """Of the first rows of ``size``; those beyond have none."""
        if self._plans is not None:
            numbers = self._plans.lay_out(adapters, size).tolist()
            self._changes.update(enumerate(numbers, self._plan))

    def adapter_plan(self, size: int) -> torch.Tensor:
        """The same, as ``AdapterPlans`` has laid it out for so many rows; the latest holds."""
        return self._adapters[: self._room(size)]

    def pending(self) -> StateChanges:
        """What has been noted since the last ``apply``; it stays noted until there is another."""
        pairs = [list(self._changes), list(self._changes.values())]
        return StateChanges(self.slots, self.width, np.array(pairs, dtype=np.int64))

    def apply(self, changes: Sent | None) -> None:
        """The numbers of ``pending``, which have been sent; None: there were none."""
        if changes is not None:
            places, numbers = changes.tensor
            self._all.index_copy_(0, places, numbers)
            self._changes.clear()

    def advance(self, slots: torch.Tensor, ids: torch.Tensor) -> None:
        """These sequences ([n] slots) have got these tokens, [n] int64. Takes no memory."""
        self.last_tokens.index_copy_(0, slots, ids)
        self.known.index_add_(0, slots, self._ones[: len(slots)])

    def lay_out_as(self, slots: int, width: int) -> None:
        """As somebody else's: ``resize`` unless it is so already."""
        if (slots, width) != (self.slots, self.width):
            self.resize(slots, width)

    def resize(self, slots: int, width: int) -> None:
        """More sequences, or longer ones, than were foreseen. What is known, or noted, stays."""
        old, count = self._columns, self.slots
        tables, before, ends = self.tables, self.width, self._ends
        self._lay_out(slots, width)
        for new, kept in zip(self._columns, old, strict=True):
            new[: len(kept)].copy_(kept)
        self.tables[:count, :before].copy_(tables)
        self._changes = {
            self._moved(place, ends, before): number for place, number in self._changes.items()
        }
        self.generation += 1

    def _room(self, rows: int) -> int:
        return 0 if self._plans is None else self._plans.room(rows)

    def _moved(self, place: int, ends: list[int], width: int) -> int:
        """Where a place of another layout is in this one."""
        column = bisect_right(ends, place)  # 0: the rows
        offset = place - (ends[column - 1] if column else 0)
        if column == len(ends):
            slot, block = divmod(offset, width)
            offset = slot * self.width + block
        return offset + (self._ends[column - 1] if column else 0)


class SlotTables(BlockTables):
    """The host's block tables, which a mixed step is assembled from, and the device's beside."""

    def __init__(self, state: SlotState) -> None:
        super().__init__()
        self._state = state

    def append(self, row: int, blocks: list[int]) -> None:
        """As ``BlockTables.append``."""
        before = self._used[row]
        super().append(row, blocks)
        slot, after = row + 1, before + len(blocks)
        if slot >= self._state.slots or after > self._state.width:
            slots, width = self._state.slots, self._state.width
            self._state.resize(
                slots if slot < slots else max(2 * slots, slot + 1),
                width if after <= width else max(2 * width, after),
            )
        self._state.set_blocks(slot, before, blocks)

    def release(self, row: int) -> None:
        """As ``BlockTables.release``: who gets the slot next reads nothing of this one's."""
        used = self._used[row]
        super().release(row)
        self._state.set_blocks(row + 1, 0, [0] * used)
