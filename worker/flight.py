"""A step between its launch and its end: who takes part, what is read back, what waits for it.

Runs in the worker. Where the device computes by itself, the next step is launched before the last
one's tokens have been read. So a sequence may be over on the host while a step that computes one
more token of it (its overrun, to be thrown away) is still under way and writes to its blocks.

Why no block is handed on that such a step may write: the scheduler takes a sequence's blocks back
only on that sequence's last Progress (its end, or its failure) or on its id among the released.
Both are put into the report of the *latest* step launched before the sequence was dropped, and no
later step can contain it. Steps end in the order of their launches, so when that report is made,
nothing that was launched for the sequence is still to run. Its last tokens alone do not wait: they
are published to the front end, which holds no blocks, when they are known.
"""

from dataclasses import dataclass, field
from typing import Protocol

from common.messages import Progress, SequenceTokens
from worker.batch import Wanted, wanted_rows
from worker.sampler import Chosen
from worker.turns import Part, Turn


@dataclass(slots=True)
class StepResult:
    """What a step did, and what it cost in seconds."""

    items: list[Progress] = field(default_factory=list)
    ahead: list[SequenceTokens] = field(default_factory=list)
    """Last tokens to be published now, whose Progress comes with a later step."""
    behind: list[Progress] = field(default_factory=list)
    """To be reported now; their tokens have been published before."""
    prefill_tokens: int = 0
    decode_tokens: int = 0
    forward_s: float = 0.0
    sample_s: float = 0.0
    repeated: bool = False  # it failed as a whole
    piece_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0  # of those


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step has computed, on the host."""

    scores: list[list[float]]
    """Log-probabilities of the prompt tokens asked for, one list per entry of ``Wanted.prompts``"""
    tokens: list[list[Chosen]]
    """What each part of ``Wanted.next_tokens`` yields."""
    forward_s: float
    sample_s: float


class Launched(Protocol):
    """A step that the device computes, or has computed."""

    @property
    def needs_host(self) -> bool:
        """Whether the next step may not be launched before this one has been read."""

    def read(self) -> Outcome:
        """Waits until it is there."""


class Flight:
    """One step."""

    def __init__(self, turn: Turn) -> None:
        self.parts: list[Part] = turn.parts
        self.turn = turn
        self.plain = turn.plain
        self.decoding = turn.decoding
        """As in ``Turn``."""
        self.wanted: Wanted
        self.wanted, self.logit_rows = wanted_rows(turn.parts)
        self.launched: Launched | None = None
        """None if the launch failed: its parts are to be tried one by one, in their turn."""
        self.failure = ""
        """Why; one sentence."""
        self.items: list[Progress] = []
        """Ends found elsewhere, to be published and reported with this step."""
        self.behind: list[Progress] = []
        """As ``StepResult.behind``."""
        self.released: list[int] = []
        """Ids to be confirmed as released with this step."""

    @property
    def holds_back(self) -> bool:
        """Whether the host has to see it before it can launch another."""
        return self.launched is None or self.launched.needs_host
