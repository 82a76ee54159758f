"""The part of a step that every shard computes alike: its device's state, forward pass, logits.

Runs in the worker, in a leader below its runner and in followers below their messages. Everything
is launched; nothing here waits for the device.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from common.messages import BLOCK_TOKENS
from worker.ahead.decode import DecodeStep
from worker.ahead.order import Order, StateChanges
from worker.ahead.state import SlotState
from worker.interfaces import Model
from worker.kernels.reference.gather import Gather, gather_inputs
from worker.parcel import Parcel, Sent
from worker.runner import pieces
from worker.transfers import Transfers


class Steps:
    """One shard's."""

    def __init__(
        self,
        model: Model,
        cache: Any,
        transfers: Transfers,
        *,
        sequences: int,
        longest: int,
        sizes: Sequence[int] = (),
        gather: Gather = gather_inputs,
    ) -> None:
        """At most ``sequences`` of at most ``longest`` tokens; ``sizes`` are to be recorded."""
        blocks = -(-longest // BLOCK_TOKENS)
        most, plans = max([0, *sizes]), model.adapters
        self.state = SlotState(sequences, blocks, most, transfers.device, plans)
        self._kinds = (False,) if plans is None else (True, False)
        self._model = model
        self._cache = cache
        self._transfers = transfers
        self._sizes = sizes
        self._decode = DecodeStep(model, cache, self.state, transfers, longest, gather)

    @property
    def most_recorded(self) -> int:
        """Rows of the largest step that is to be recorded; 0: none is."""
        return max([0, *self._sizes])

    def record(self, changes: StateChanges) -> None:
        """Record steps in which all decode, once all rows of the state are padding.

        Those with adapters before those without, which fit into their memory.
        """
        self.update(changes)
        self._decode.record(self._sizes, self._kinds)

    def update(self, changes: StateChanges) -> None:
        """Of the state, outside of a step."""
        parcel = Parcel()
        sent = self._add(changes, parcel)
        parcel.send(self._transfers)
        self.state.apply(sent)

    def size_for(self, rows: int) -> int:
        """How many rows are computed where so many sequences decode."""
        return self._decode.size_for(rows)

    def run(self, order: Order, parcel: Parcel) -> tuple[torch.Tensor, torch.Tensor]:
        """Send the parcel with all that the order needs, and compute the hidden rows.

        Returns [R, hidden] and the slots of those whose next token is chosen, [n] int64.
        """
        sent = self._add(order.changes, parcel)
        if order.assembly is None:
            parcel.send(self._transfers)
            self.state.apply(sent)
            hidden = self._decode(order.size, order.lengths, order.adapted)
            return hidden, self.state.rows[: order.chosen]
        arrays = [parcel.integers(array) for array in order.assembly.arrays]
        slots = parcel.integers(order.slots)
        parcel.send(self._transfers)
        self.state.apply(sent)
        inputs = order.assembly.inputs([array.tensor for array in arrays])
        decoding = order.assembly.decoding
        last_tokens = self.state.last_tokens.index_select(0, slots.tensor[:decoding])
        inputs.token_ids[:decoding].copy_(last_tokens)
        return self._model.forward(inputs, self._cache), slots.tensor

    def scored_logits(self, hidden: torch.Tensor, order: Order) -> Iterator[torch.Tensor]:
        """Of the scored rows, piece by piece: before those of the chosen ones."""
        for rows in pieces(order.scored):
            yield self._model.logits(hidden[order.chosen :][rows])

    def chosen_logits(self, hidden: torch.Tensor, order: Order) -> torch.Tensor:
        """[n, vocabulary] float32, of the rows whose next token is chosen."""
        return self._model.logits(hidden[: order.chosen])

    def _add(self, changes: StateChanges, parcel: Parcel) -> Sent | None:
        self.state.lay_out_as(changes.slots, changes.width)
        return parcel.integers(changes.numbers) if changes.numbers.size else None
