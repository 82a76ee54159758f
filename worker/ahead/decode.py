"""The forward pass of a step in which all sequences decode, from the device's state alone.

Runs in the worker. Its tensors have shapes that depend on the number of rows and nothing else, so
it can be recorded once for each size of a ladder and replayed with a single launch (CUDA graphs).
A step takes the smallest size that holds it; what is beyond its rows computes slot 0. Of a model
with adapters each size is recorded twice: for steps in which somebody has one, and for others.
"""

from bisect import bisect_left
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from common.messages import BLOCK_TOKENS
from worker.ahead.state import SlotState
from worker.inputs import StepInputs
from worker.interfaces import Model
from worker.kernels.reference.gather import Gather
from worker.transfers import Program, Transfers


class DecodeStep:
    """Runs it, recorded or not."""

    def __init__(
        self,
        model: Model,
        cache: Any,
        state: SlotState,
        transfers: Transfers,
        longest: int,
        gather: Gather,
    ) -> None:
        """``longest``: no sequence has more tokens."""
        self._model = model
        self._cache = cache
        self._state = state
        self._transfers = transfers
        self._longest = longest
        self._gather = gather
        self._recorded: dict[tuple[int, bool], Program] = {}
        """By their sizes, and whether somebody has an adapter."""
        self._sizes: list[int] = []
        self._generation = state.generation

    def record(self, sizes: Sequence[int], kinds: Sequence[bool] = (False,)) -> None:
        """For each of these numbers of rows, all of them padding at present.

        ``kinds``: whether somebody has an adapter. The largest first: the others fit into its
        memory.
        """
        for size in sorted(sizes, reverse=True):
            for adapted in kinds:
                self._recorded[size, adapted] = self._transfers.record(
                    partial(self._forward, size, adapted), (self._longest,) * size
                )
        self._sizes = sorted(sizes)
        self._generation = self._state.generation

    def size_for(self, rows: int) -> int:
        """How many rows are computed for so many."""
        self._forget_outdated()
        place = bisect_left(self._sizes, rows)
        return self._sizes[place] if place < len(self._sizes) else rows

    def __call__(self, size: int, lengths: tuple[int, ...], adapted: bool = False) -> torch.Tensor:
        """Hidden rows [size, hidden] for ``state.rows``; overwritten by the next call.

        ``lengths`` are those of the rows, each one's token included, as the host knows them.
        ``adapted``: some have adapters, those of ``state.adapter_plan``.
        """
        self._forget_outdated()
        lengths += (1,) * (size - len(lengths))
        recorded = self._recorded.get((size, adapted))
        return self._forward(size, adapted, lengths) if recorded is None else recorded(lengths)

    def _forget_outdated(self) -> None:
        """What was recorded before the state was laid out anew reads other tensors."""
        if self._generation != self._state.generation:
            self._sizes, self._recorded = [], {}
            self._generation = self._state.generation

    def _forward(self, size: int, adapted: bool, lengths_host: tuple[int, ...]) -> torch.Tensor:
        state = self._state
        rows = state.decode_rows(size)
        slots = rows.sequences
        found = self._gather(rows, state.last_tokens, state.known, state.tables)
        width = min(-(-max(lengths_host) // BLOCK_TOKENS), state.width)
        inputs = StepInputs(
            token_ids=found.ids,
            positions=found.positions,
            slots=found.slots,
            block_tables=state.tables[:, :width].index_select(0, slots),
            lengths=found.lengths,
            lengths_host=lengths_host,
            query_lengths_host=(1,) * size,
            decode_sequences=size,
            logit_rows=torch.arange(size, device=slots.device),
            adapter_plan=state.adapter_plan(size) if adapted else None,
        )
        return self._model.forward(inputs, self._cache)
