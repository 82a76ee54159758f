"""Computes steps: from whose turn it is to what they yield. Here: with the host in the loop.

Runs in the worker, below the engine. A runner owns what it keeps of sequences beside their ids:
rows of the block tables, rows of the sampler. This one assembles each step from the ids that the
host knows and reads its outcome at once; the other one (``worker.ahead``) leaves the ids on the
device. Knows nothing of messages, or of when a sequence ends.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from common.messages import NewSequence
from worker.batch import BlockTables, assemble, tokens_of
from worker.choosing import Choosing
from worker.flight import Flight, Launched, Outcome
from worker.interfaces import Model
from worker.masks import Pending
from worker.parcel import Parcel
from worker.processors import SamplingRow
from worker.sampler import Chosen, Sampler
from worker.transfers import Transfers
from worker.turns import Part

_PROMPT_ROWS = 256
"""Prompt logits are computed for so many tokens at a time: [256, vocabulary], never [T, …]."""


@dataclass(frozen=True, slots=True)
class Device:
    """What runners compute with."""

    model: Model
    cache: Any
    """The keys and values, as the model takes them."""
    transfers: Transfers
    sampler: Sampler
    clock: Callable[[], float]


class Runner(ABC):
    """What the engine asks of whoever computes its steps."""

    ahead = 0
    """So many steps may be launched before the oldest one is read."""

    def __init__(self, device: Device, tables: BlockTables | None = None) -> None:
        self._model = device.model
        self._cache = device.cache
        self._transfers = device.transfers
        self._sampler = device.sampler
        self._choosing = Choosing(device.sampler, device.transfers)
        self._clock = device.clock
        self._tables = tables or BlockTables()

    @property
    def rows_in_use(self) -> int:
        """Of all tables: 0 when nothing runs."""
        return self._tables.rows_in_use + self._sampler.count_rows_in_use

    def admit(self, new: NewSequence) -> tuple[SamplingRow, int]:
        """Its rows, of the sampler and of the block tables, until ``release``. All ids are valid.

        Raises what torch raises if there is no memory for its token counts.
        """
        spec = new.spec
        row = self._sampler.admit(
            spec.sampling,
            spec.stop_token_ids,
            spec.prompt_ids,
            new.generated_ids,
            guided=bool(spec.grammar),
        )
        return row, self._tables.add(new.blocks)

    def extend(self, table_row: int, blocks: list[int]) -> None:
        """More blocks for a sequence."""
        self._tables.append(table_row, blocks)

    def release(self, row: SamplingRow, table_row: int) -> None:
        """Its rows may be given to others."""
        self._tables.release(table_row)
        self._model.release(table_row)
        self._sampler.release(row)

    def adapters_of(self, parts: list[Part]) -> tuple[int, ...]:
        """As ``StepInputs.adapters_host``."""
        if self._model.adapters is None:
            return ()
        adapters = tuple([part.sequence.adapter for part in parts])
        return adapters if max(adapters) >= 0 else ()

    @abstractmethod
    def prepare(self) -> None:
        """The warm-up is over: make what ordinary steps need. Once, before any step is ahead."""

    @abstractmethod
    def launch(self, flight: Flight, masks: Pending | None) -> Launched:
        """Compute a step. Raises whatever went wrong, and then has changed nothing."""


MakeRunner = Callable[[Device], Runner]


def pieces(rows: int) -> Iterator[slice]:
    """Of rows of prompts: as many as logits are computed of at a time."""
    for first in range(0, rows, _PROMPT_ROWS):
        yield slice(first, min(first + _PROMPT_ROWS, rows))


def scores_of(logits: Iterable[torch.Tensor], tokens: torch.Tensor) -> Iterator[torch.Tensor]:
    """Log-probabilities of these tokens, [n] int64, by rows of logits that come in pieces."""
    first = 0
    for piece in logits:
        own = tokens[first : first + len(piece), None]
        yield torch.log_softmax(piece, dim=-1).gather(1, own)[:, 0]
        first += len(piece)


def following_of(flight: Flight) -> list[int]:
    """The tokens after all scored rows of the prompts."""
    return [token for _, ids in flight.wanted.prompts for token in ids]


def by_prompt(flight: Flight, scores: Sequence[float]) -> list[list[float]]:
    """The same numbers, cut into those of each prompt."""
    ends = iter(scores)
    return [[next(ends) for _ in ids] for _, ids in flight.wanted.prompts]


class Read:
    """A step that has been read, and that is to be known before another is launched."""

    needs_host = True

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome

    def read(self) -> Outcome:
        """As ``Launched.read``."""
        return self._outcome


class HostRunner(Runner):
    """One step at a time."""

    def prepare(self) -> None:
        """Nothing."""

    def launch(self, flight: Flight, masks: Pending | None) -> Launched:
        """As ``Runner.launch``; has ended when it returns."""
        began = self._clock()
        assembly = assemble(
            flight.parts,
            flight.plain,
            tokens_of(flight.parts),
            flight.logit_rows,
            self._tables,
            self.adapters_of(flight.parts),
        )
        wanted = flight.wanted
        parcel = Parcel()
        arrays = [parcel.integers(array) for array in assembly.arrays]
        following = parcel.integers(following_of(flight))
        tokens: list[list[Chosen]] = []
        with self._choosing.pack(wanted, parcel) as due:
            parcel.send(self._transfers)
            inputs = assembly.inputs([array.tensor for array in arrays])
            hidden = self._model.forward(inputs, self._cache)
            if self._transfers.device.type == "cuda":
                torch.cuda.synchronize(self._transfers.device)
            forwarded = self._clock()
            count = len(wanted.next_tokens) + wanted.drafts
            scored = hidden[count:]
            logits = (self._model.logits(scored[rows]) for rows in pieces(len(following.tensor)))
            scores = [
                score for piece in scores_of(logits, following.tensor) for score in piece.tolist()
            ]
            if due is not None:
                tokens = self._choosing.choose(due, self._model.logits(hidden[:count]), masks)
        sample_s = self._clock() - forwarded
        forward_s = forwarded - began
        return Read(Outcome(by_prompt(flight, scores), tokens, forward_s, sample_s))
