"""A runner whose tokens stay on the device: the next step is launched before they are read.

Runs in the worker, below the engine. A step in which all decode is computed from the device's state
(``state``, ``decode``); one that reads prompts is assembled on the host, which knows all of it but
the last tokens of the sequences that decode. Sampling follows, outside of what was recorded, so its
kernels may differ from step to step. Nothing here waits for the device, except where a step cannot
be read without looking at what it has computed (the most likely tokens with their ties): such a
step, and one that follows grammars or sets watermarks (the host has to know the last tokens), lets
no other be launched before it has been read. Nor does one with drafts, which are rows of their own
in a step in which all decode: the host verifies them.

Other shards of the model compute the same steps, from orders (``order``) that say what the host
knows, and are told on their devices which tokens were chosen here. Alone, nobody is told anything.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Protocol

import torch

from common.messages import NewSequence
from worker.ahead.order import Order, StateChanges
from worker.ahead.state import SlotTables
from worker.ahead.steps import Steps
from worker.batch import assemble, tokens_of
from worker.flight import Flight, Launched, Outcome
from worker.kernels.reference.gather import Gather, gather_inputs
from worker.masks import Pending
from worker.parcel import Parcel
from worker.processors import SamplingRow
from worker.runner import Device, Read, Runner, by_prompt, following_of, scores_of
from worker.sampler import Choice
from worker.transfers import Download
from worker.turns import Part


class Others(Protocol):
    """The other shards of a model, which compute all that is computed here."""

    def record(self, changes: StateChanges) -> None:
        """Have them record what ``Steps.record`` records."""

    def follow(self, order: Order) -> AbstractContextManager[None]:
        """Have them compute this step; what fails within fails for all."""

    def tell(self, ids: torch.Tensor) -> None:
        """Which tokens were chosen in this step: [n] int64, on the device."""


class Nobody:
    """As ``Others``: the model is in one process."""

    def record(self, changes: StateChanges) -> None:
        """Nothing."""

    def follow(self, order: Order) -> AbstractContextManager[None]:
        """Nothing; what fails, fails as it is."""
        return nullcontext()

    def tell(self, ids: torch.Tensor) -> None:
        """Nothing."""


NOBODY = Nobody()


class _UnderWay:
    """A step that has been launched."""

    def __init__(
        self,
        flight: Flight,
        choice: Choice | None,
        chosen: Download,
        scores: Download | None,
        lap: Callable[[], float],
    ) -> None:
        """``chosen``: what was chosen, or anything else that comes last; ``lap``: seconds taken."""
        guided = any(part.sequence.guide is not None for part in flight.wanted.next_tokens)
        self.needs_host = guided or (choice is not None and choice.needs_host)
        self._flight = flight
        self._choice = choice
        self._chosen = chosen
        self._scores = scores
        self._lap = lap

    def read(self) -> Outcome:
        """As ``Launched.read``."""
        chosen = self._chosen.read()
        tokens = [] if self._choice is None else self._choice.read(chosen).tokens()
        scores = [] if self._scores is None else self._scores.read().tolist()
        yielded = [[token] for token in tokens]
        return Outcome(by_prompt(self._flight, scores), yielded, self._lap(), 0.0)


class AheadRunner(Runner):
    """One step ahead of the host."""

    ahead = 1

    def __init__(
        self,
        device: Device,
        *,
        sequences: int,
        longest: int,
        sizes: Sequence[int] = (),
        gather: Gather = gather_inputs,
        others: Others = NOBODY,
    ) -> None:
        """As ``Steps``, and with whom."""
        self._steps = Steps(
            device.model,
            device.cache,
            device.transfers,
            sequences=sequences,
            longest=longest,
            sizes=sizes,
            gather=gather,
        )
        self._state = self._steps.state
        super().__init__(device, SlotTables(self._state))
        self._others = others
        self._rows: tuple[list[int], list[tuple[int, int]], int] = [], [], 0
        """What the state's rows are: slots, drafts, and of how many."""
        self._planned: tuple[int, tuple[int, ...]] = 0, ()
        """Of which size, and of which adapters, the state's plan is."""
        self._read_s = 0.0

    def prepare(self) -> None:
        """Record the steps in which all decode."""
        self._rows, self._planned = ([], [], 0), (0, ())
        most = self._steps.most_recorded
        self._state.set_rows([], most)
        self._state.set_adapters((), most)
        changes = self._state.pending()
        self._others.record(changes)
        self._steps.record(changes)

    def admit(self, new: NewSequence) -> tuple[SamplingRow, int]:
        """As ``Runner.admit``."""
        row, table_row = super().admit(new)
        prompt, generated = new.spec.prompt_ids, new.generated_ids
        known = len(prompt) + len(generated)
        self._state.enter(table_row + 1, (generated or prompt)[-1], known, len(prompt))
        return row, table_row

    def launch(self, flight: Flight, masks: Pending | None) -> Launched:
        """As ``Runner.launch``."""
        if flight.turn.drafted:
            return self._launch_drafted(flight, masks)
        began = self._clock()
        sequences = [part.sequence for part in flight.wanted.next_tokens]
        rows = [sequence.row for sequence in sequences]
        ids = following_of(flight)
        parcel = Parcel()
        following = parcel.integers(ids) if ids else None
        batch = self._sampler.pack(rows, parcel) if rows else None
        order = self._order(flight, len(ids))
        choice, last, scores = None, self._state.known[:1], []
        download = self._transfers.download
        with self._others.follow(order):
            hidden, slots = self._steps.run(order, parcel)
            if following is not None:
                pieces = self._steps.scored_logits(hidden, order)
                scores = list(scores_of(pieces, following.tensor))
            if batch is not None:
                known = self._state.known.index_select(0, slots)
                choice = self._sampler.choose(
                    self._steps.chosen_logits(hidden, order),
                    batch,
                    known - self._state.prompts.index_select(0, slots),
                    known,
                    masks.wait() if masks is not None else None,
                    [sequences[number].ids[-1] for number in batch.marked],
                )
                last = choice.packed
            chosen = download(last)
            scored = download(torch.cat(scores)) if scores else None
            if choice is not None:
                # What is counted once must not be repeated: from here on, nothing lacks memory
                # that has counted anything.
                self._others.tell(choice.ids)
                self._sampler.accept(choice)
                self._state.advance(slots, choice.ids)
        return _UnderWay(flight, choice, chosen, scored, partial(self._lap, began))

    def _launch_drafted(self, flight: Flight, masks: Pending | None) -> Launched:
        """One that has been read when this returns: the host says what all shards go on from."""
        began = self._clock()
        wanted = flight.wanted
        parcel = Parcel()
        with self._choosing.pack(wanted, parcel) as due:
            assert due is not None, "drafts of nobody"
            order = self._order(flight, 0)
            with self._others.follow(order):
                hidden, _ = self._steps.run(order, parcel)
                logits = self._steps.chosen_logits(hidden, order)
            verified = self._choosing.choose(due, logits, masks)
        for part, tokens in zip(wanted.next_tokens, verified, strict=True):
            sequence = part.sequence
            known = len(sequence.ids) + len(tokens)
            self._state.enter(sequence.table_row + 1, tokens[-1][0], known, sequence.prompt_length)
        return Read(Outcome([], verified, self._lap(began), 0.0))

    def _order(self, flight: Flight, scored: int) -> Order:
        """What all shards are to compute."""
        decoding, parts = flight.decoding, flight.parts
        if decoding == len(parts):
            return self._decoding(parts, scored)
        slots = [part.sequence.table_row + 1 for part in flight.wanted.next_tokens]
        adapters = self.adapters_of(parts)
        tokens = [0] * decoding + tokens_of(parts[decoding:])
        assembly = assemble(parts, decoding, tokens, flight.logit_rows, self._tables, adapters)
        return Order(
            self._state.pending(), len(slots), scored, assembly=assembly, slots=tuple(slots)
        )

    def _decoding(self, parts: list[Part], scored: int) -> Order:
        """The same where all decode: a row of each, then one of each draft."""
        drafted = [(part, *draft) for part in parts for draft in enumerate(part.drafts, 1)]
        rows = parts + [part for part, _, _ in drafted]
        slots = [part.sequence.table_row + 1 for part in rows]
        drafts = [(offset, token) for _, offset, token in drafted]
        size = self._steps.size_for(len(slots))
        if (slots, drafts, size) != self._rows:
            self._state.set_rows(slots, size, drafts)
            self._rows = slots, drafts, size
        adapters = self.adapters_of(rows)
        if adapters and (size, adapters) != self._planned:
            self._state.set_adapters(adapters, size)
            self._planned = size, adapters
        lengths = [part.start + 1 for part in parts]
        lengths += [part.start + 1 + offset for part, offset, _ in drafted]
        changes, adapted = self._state.pending(), bool(adapters)
        return Order(changes, len(slots), scored, size, tuple(lengths), adapted, len(drafts))

    def _lap(self, began: float) -> float:
        """Seconds that a step took which was launched then and has just been read."""
        began, self._read_s = max(began, self._read_s), self._clock()
        return self._read_s - began
