"""A runner whose tokens stay on the device: the next step is launched before they are read.

Runs in the worker, below the engine. A step in which all decode is computed from the device's state
(``state``, ``decode``); one that reads prompts is assembled on the host, which knows all of it but
the last tokens of the sequences that decode. Sampling follows, outside of what was recorded, so its
kernels may differ from step to step. Nothing here waits for the device, except where a step cannot
be read without looking at what it has computed (the most likely tokens with their ties): such a
step, and one that follows grammars, lets no other be launched before it has been read.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch

from common.messages import BLOCK_TOKENS, NewSequence
from worker.ahead.decode import DecodeStep
from worker.ahead.state import SlotState, SlotTables
from worker.batch import assemble, tokens_of
from worker.flight import Flight, Launched, Outcome
from worker.kernels.reference.gather import Gather, gather_inputs
from worker.masks import Pending
from worker.parcel import Parcel
from worker.processors import SamplingRow
from worker.runner import Device, Runner, by_prompt, following_of
from worker.sampler import Choice, Sampled
from worker.transfers import Download


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
        self.needs_host = guided or (choice is not None and choice.asked is not None)
        self._flight = flight
        self._choice = choice
        self._chosen = chosen
        self._scores = scores
        self._lap = lap

    def read(self) -> Outcome:
        """As ``Launched.read``."""
        chosen = self._chosen.read()
        sampled = Sampled([], [], []) if self._choice is None else self._choice.read(chosen)
        scores = [] if self._scores is None else self._scores.read().tolist()
        return Outcome(by_prompt(self._flight, scores), sampled, self._lap(), 0.0)


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
    ) -> None:
        """At most ``sequences`` of at most ``longest`` tokens; ``sizes`` are to be recorded."""
        blocks, transfers = -(-longest // BLOCK_TOKENS), device.transfers
        self._state = SlotState(sequences, blocks, max([0, *sizes]), transfers)
        super().__init__(device, SlotTables(self._state))
        self._decode = DecodeStep(
            device.model, device.cache, self._state, transfers, longest, gather
        )
        self._sizes = sizes
        self._rows: list[int] = []
        self._size = 0
        self._read_s = 0.0

    def prepare(self) -> None:
        """Record the steps in which all decode."""
        self._rows, self._size = [], 0
        self._decode.record(self._sizes)

    def admit(self, new: NewSequence) -> tuple[SamplingRow, int]:
        """As ``Runner.admit``."""
        row, table_row = super().admit(new)
        prompt, generated = new.spec.prompt_ids, new.generated_ids
        known = len(prompt) + len(generated)
        self._state.enter(table_row + 1, (generated or prompt)[-1], known, len(prompt))
        return row, table_row

    def launch(self, flight: Flight, masks: Pending | None) -> Launched:
        """As ``Runner.launch``."""
        began = self._clock()
        chosen_for = [part.sequence for part in flight.wanted.next_tokens]
        slots = [sequence.table_row + 1 for sequence in chosen_for]
        count = len(chosen_for)
        parcel = Parcel()
        following = parcel.integers(ids) if (ids := following_of(flight)) else None
        batch = None
        if count:
            batch = self._sampler.pack([sequence.row for sequence in chosen_for], parcel)
        compute = self._all_decode if flight.decoding == len(flight.parts) else self._mixed
        hidden, where = compute(flight, slots, parcel)
        scores = [] if following is None else list(self._scores(hidden[count:], following.tensor))
        choice, last = None, self._state.known[:1]
        if batch is not None:
            known = self._state.known.index_select(0, where)
            choice = self._sampler.choose(
                self._model.logits(hidden[:count]),
                batch,
                known - self._state.prompts.index_select(0, where),
                known,
                masks.wait() if masks is not None else None,
            )
            last = choice.packed
            self._state.advance(where, choice.ids)
            self._sampler.accept(choice)
        download = self._transfers.download
        return _UnderWay(
            flight,
            choice,
            download(last),
            download(torch.cat(scores)) if scores else None,
            partial(self._lap, began),
        )

    def _all_decode(
        self, flight: Flight, slots: list[int], parcel: Parcel
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden rows of all parts, which these slots have, and the slots on the device."""
        size = self._decode.size_for(len(slots))
        if slots != self._rows or size != self._size:
            self._state.set_rows(slots, size)
            self._rows, self._size = slots, size
        self._send(parcel)
        hidden = self._decode(size, tuple([part.end for part in flight.parts]))
        return hidden, self._state.rows[: len(slots)]

    def _mixed(
        self, flight: Flight, slots: list[int], parcel: Parcel
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden rows of ``flight.logit_rows``, and these slots on the device."""
        decoding = flight.decoding
        tokens = [0] * decoding + tokens_of(flight.parts[decoding:])
        assembly = assemble(flight.parts, decoding, tokens, flight.logit_rows, self._tables)
        arrays = [parcel.integers(array) for array in assembly.arrays]
        where = parcel.integers(slots)
        self._send(parcel)
        inputs = assembly.inputs([array.tensor for array in arrays])
        # Decoding parts come first, in the step and among those whose next token is chosen.
        last_tokens = self._state.last_tokens.index_select(0, where.tensor[:decoding])
        inputs.token_ids[:decoding].copy_(last_tokens)
        return self._model.forward(inputs, self._cache), where.tensor

    def _send(self, parcel: Parcel) -> None:
        """The parcel, and changes of the state with it."""
        self._state.pack(parcel)
        parcel.send(self._transfers)
        self._state.settle()

    def _lap(self, began: float) -> float:
        """Seconds that a step took which was launched then and has just been read."""
        began, self._read_s = max(began, self._read_s), self._clock()
        return self._read_s - began
