"""Whose turn it is: how many tokens each running sequence computes in the next step.

Runs in the worker. Bounded by the step's tokens and by leased room, nothing else; a sequence that
has no room waits, the others go on. Pure: knows nothing of tensors, messages or time.
"""

from collections.abc import Iterable
from collections.abc import Sequence as Items
from dataclasses import dataclass, replace

from common.messages import BLOCK_TOKENS
from worker.pace import Allowance
from worker.sequences import Sequence


@dataclass(slots=True, eq=False)
class Part:
    """What one sequence computes in one step. Made for every sequence and step; never changed."""

    sequence: Sequence
    start: int
    """Its computed tokens before the step."""
    tokens: int
    """How many more it computes."""
    end: int
    """Computed tokens after the step."""
    yields: bool
    """Whether the step ends with this sequence's next token."""
    drafts: Items[int] = ()
    """The last of its tokens, where they are guesses: more tokens come of those that are right."""

    @property
    def without_drafts(self) -> "Part":
        """The same, one token less for each draft."""
        count = len(self.drafts)
        return replace(self, tokens=self.tokens - count, end=self.end - count, drafts=())


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One step: decoding sequences first, one token each; with drafts; then pieces of prompts."""

    parts: list[Part]
    plain: int
    """How many of the parts decode one token."""
    drafted: int = 0
    """How many of the parts after them decode with drafts."""

    @property
    def decoding(self) -> int:
        """How many of the parts decode."""
        return self.plain + self.drafted

    @property
    def decoders(self) -> list[Part]:
        """Those that decode."""
        return self.parts[: self.decoding]

    @property
    def readers(self) -> list[Part]:
        """Those that read prompts."""
        return self.parts[self.decoding :]

    @property
    def pieces(self) -> list[tuple[int, int]]:
        """Beside others that only decode: the positions where they begin, and their tokens.

        Of prompts; and of drafts, where there are prompts.
        """
        pieces = [(part.start, part.tokens) for part in self.readers]
        if pieces and self.drafted:
            drafted = self.parts[self.plain : self.decoding]
            pieces += [(part.start + 1, len(part.drafts)) for part in drafted]
        return pieces


def take_turns(
    running: Iterable[Sequence], step_tokens: int, allowance: Allowance | None = None
) -> Turn:
    """The next step over sequences in the order of their dispatch; empty if none can advance.

    While others decode, no more is read of prompts than the ``allowance``.

    Steps that have been launched count as done: their tokens exist, though nobody knows them yet. A
    sequence that they bring to its last token by its count does not advance.

    If more sequences decode than the step may have tokens, those go that have waited longest. One
    that waits for its grammar is read up to its last token: that one would yield the next.
    """
    decoding: list[Sequence] = []
    reading: list[Sequence] = []
    for sequence in running:
        launched = sequence.launched
        if len(sequence.blocks) * BLOCK_TOKENS > launched:
            if sequence.known != launched + 1:
                reading.append(sequence)
            elif not sequence.waiting and sequence.known < sequence.limit:
                decoding.append(sequence)
    if len(decoding) > step_tokens:
        decoding.sort(key=_last_turn)
        del decoding[step_tokens:]
    parts = [
        Part(sequence, launched := sequence.launched, 1, launched + 1, True)
        for sequence in decoding
    ]
    left = step_tokens - len(parts)
    for sequence in reading:
        if left <= 0:
            break
        start, known = sequence.launched, sequence.known
        readable = known - sequence.waiting
        tokens = min(readable - start, room_of(sequence), left)
        if decoding and allowance is not None:
            tokens = allowance.take(start, tokens)
            if tokens <= 0:
                break
        end = start + tokens
        parts.append(Part(sequence, start, tokens, end, end == known))
        left -= tokens
    return Turn(parts, len(decoding))


def room_of(sequence: Sequence) -> int:
    """Tokens that it may compute before its lease is full."""
    return len(sequence.blocks) * BLOCK_TOKENS - sequence.launched


def _last_turn(sequence: Sequence) -> int:
    return sequence.last_turn
