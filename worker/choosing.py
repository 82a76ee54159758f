"""Chooses the tokens of a step that the host reads at once, and counts those that are taken.

Runs in the worker, below the runners: packed on the host, chosen on the device, read. A draft's row
is chosen from as if its draft had been known, and all rows are at once: counts of penalties are
branched for the time of the step, and noise depends on the position alone. So a row after a draft
that turns out to be wrong has cost its choice, and nobody waits for the device twice.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from worker.batch import Wanted
from worker.masks import Pending
from worker.parcel import Parcel, Sent
from worker.processors import SamplingRow
from worker.sampler import Batch, Chosen, Sampler
from worker.speculation.verification import places_of, verify
from worker.transfers import Transfers


class Due(NamedTuple):
    """Tokens of a step that are to be chosen, R of them, some of them after drafts."""

    wanted: Wanted
    batch: Batch
    positions: Sent  # [R] int64, among the generated tokens
    lengths: Sent  # [R] int64, of what is before them
    last_ids: list[int]
    """Before those of ``batch.marked``."""


class Choosing:
    """Of one runner."""

    def __init__(self, sampler: Sampler, transfers: Transfers) -> None:
        self._sampler = sampler
        self._transfers = transfers

    @contextmanager
    def pack(self, wanted: Wanted, parcel: Parcel) -> Iterator[Due | None]:
        """What choosing these needs on the device goes there with the parcel.

        None: nothing is to be chosen. Counts of drafts are there until the end of ``with``.
        """
        branches: list[SamplingRow] = []
        try:
            places = places_of(wanted)
            rows = []
            for part, drafts in places:
                row = part.sequence.row
                if drafts:
                    row = self._sampler.branch(row, list(part.drafts[:drafts]))
                    branches.append(row)
                rows.append(row)
            if not rows:
                yield None
                return
            positions = parcel.integers([part.sequence.index + drafts for part, drafts in places])
            lengths = parcel.integers([len(part.sequence.ids) + drafts for part, drafts in places])
            batch = self._sampler.pack(rows, parcel)
            last_ids = [places[number].last_id for number in batch.marked]
            yield Due(wanted, batch, positions, lengths, last_ids)
        finally:
            for row in branches:
                self._sampler.release(row)

    def choose(self, due: Due, logits: torch.Tensor, masks: Pending | None) -> list[list[Chosen]]:
        """What each part yields, by ``logits`` ([R, vocabulary] float32), which are overwritten.

        Waits for the device. What fails has counted nothing.
        """
        wanted, batch, positions, lengths, last_ids = due
        allowed = masks.wait() if masks is not None else None
        choice = self._sampler.choose(
            logits, batch, positions.tensor, lengths.tensor, allowed, last_ids
        )
        sampled = choice.read(self._transfers.download(choice.packed).read())
        verified = verify(wanted, sampled.tokens())
        for part, tokens in zip(wanted.next_tokens, verified, strict=True):
            self._sampler.count(part.sequence.row, [token for token, _, _ in tokens])
        return verified
