"""Chooses the tokens of a step that the host reads at once: in rounds, where some have drafts.

Runs in the worker, below the runners. A round is packed on the host, chosen on the device and read;
what is counted of it is taken back if a later one fails. ``worker.speculation.verification`` says
what is in a round.
"""

from functools import partial
from typing import NamedTuple

import torch

from worker.batch import Wanted
from worker.masks import Pending
from worker.parcel import Parcel, Sent
from worker.sampler import Batch, Choice, Chosen, Sampled, Sampler
from worker.speculation.verification import Round, verify
from worker.transfers import Transfers


class Due(NamedTuple):
    """A round of tokens that are to be chosen, on the device."""

    batch: Batch
    positions: Sent
    lengths: Sent
    numbers: Sent
    last_ids: list[int]
    """Before those of ``batch.marked``."""


class Rounds:
    """Of one runner."""

    def __init__(self, sampler: Sampler, transfers: Transfers) -> None:
        self._sampler = sampler
        self._transfers = transfers

    def pack(self, due: Round, parcel: Parcel) -> Due | None:
        """What choosing these needs on the device; None: nothing is to be chosen."""
        if not due.rows:
            return None
        positions, lengths = parcel.integers(due.positions), parcel.integers(due.lengths)
        numbers = parcel.integers(due.numbers)
        batch = self._sampler.pack(due.rows, parcel)
        last_ids = [due.last_id(place) for place in batch.marked]
        return Due(batch, positions, lengths, numbers, last_ids)

    def choose(
        self,
        wanted: Wanted,
        first: Round,
        due: Due,
        logits: torch.Tensor,
        masks: Pending | None,
    ) -> tuple[Sampled, list[list[Chosen]]]:
        """The tokens of the first round, and of each part all that it yields, where some have
        drafts.

        Where one cannot be chosen, nothing has been counted of those before it.
        """
        counted: list[Choice] = []
        try:
            allowed = masks.wait() if masks is not None else None
            sampled = self._choose_round(due, logits, counted, allowed)
            if not wanted.drafts:
                return sampled, []
            choose_then = partial(self._choose_then, logits, counted)
            return sampled, verify(wanted, first, sampled, choose_then)
        except Exception:
            for choice in counted:
                self._sampler.take_back(choice)
            raise

    def _choose_round(
        self,
        due: Due,
        logits: torch.Tensor,
        counted: list[Choice],
        allowed: torch.Tensor | None = None,
    ) -> Sampled:
        """Of rows of ``logits`` [R, vocabulary], which are overwritten if they are all.

        The choice is added to ``counted``.
        """
        numbers = due.numbers.tensor
        if len(numbers) < len(logits):
            logits = logits.index_select(0, numbers)
        choice = self._sampler.choose(
            logits, due.batch, due.positions.tensor, due.lengths.tensor, allowed, due.last_ids
        )
        sampled = choice.read(self._transfers.download(choice.packed).read())
        self._sampler.accept(choice)
        counted.append(choice)
        return sampled

    def _choose_then(self, logits: torch.Tensor, counted: list[Choice], then: Round) -> Sampled:
        """As ``verification.Choose``, of a later round."""
        parcel = Parcel()
        due = self.pack(then, parcel)
        assert due is not None, "a round without tokens"
        parcel.send(self._transfers)
        return self._choose_round(due, logits, counted)
