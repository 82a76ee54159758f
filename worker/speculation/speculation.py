"""Which sequences of a step speculate, and with how many tokens.

Runs in the worker, one object per engine. Drafts get what a step has left when all who decode and
all prompts have had theirs: never a token beyond the step's budget, the leased blocks, or the
sequence's own end. And only while they pay: a row more makes a step longer by some share, which is
measured here, and the tokens that it wins have to outweigh that. Where steps are launched before
the last tokens are known, there are drafts only for those whose drafts are worth the wait. Knows
nothing of tensors.
"""

from worker.pace import Allowance, Line
from worker.sequences import Sequence
from worker.speculation.drafter import MakeDrafter
from worker.speculation.ngrams import NgramDrafter
from worker.speculation.speculator import Speculator
from worker.turns import Part, Turn, room_of

MOST_ROWS = 64
"""Drafts of one step at most: their logits, [64, vocabulary] float32, are in the worst step."""
_UNKNOWN_SLOPE, _ENOUGH_STEPS = 0.03, 32
"""What a row adds to a step, as a share of one without rows, before so many were measured: a line
through a few points says anything."""
_LEAST_VARIANCE = 0.5
"""Steps of always the same number of rows say nothing about a row."""
_WAIT = 0.1
"""Share of a step for which the device waits if the host reads one before it launches the next. An
estimate: no GPU has been measured."""
_LEAST_WORTH, _MOST_WORTH = 0.02, 0.95
"""Whatever was measured, on a machine that does other things, too."""


class Speculation:
    """Drafts of one engine."""

    def __init__(self, tokens: int, make_drafter: MakeDrafter = NgramDrafter) -> None:
        """At most so many drafts of a sequence and step; 0: none, and nothing is kept for them."""
        self._tokens = tokens
        self._make_drafter = make_drafter
        self._line = Line(_LEAST_VARIANCE)
        self._line.slope = _UNKNOWN_SLOPE
        self._steps = 0

    def admit(self, ids: list[int], limit: int) -> Speculator | None:
        """For a sequence with these tokens, a list that grows, ``limit`` at most."""
        return Speculator(self._make_drafter(ids, limit)) if self._tokens else None

    def extend(self, turn: Turn, step_tokens: int, allowance: Allowance | None) -> Turn:
        """The same step, with drafts from what it has left; the ``allowance`` beside prompts."""
        if not self._tokens:
            return turn
        rows = sum([part.tokens for part in turn.parts])
        left = min(step_tokens - rows, MOST_ROWS)
        able = sum([part.sequence.speculator is not None for part in turn.decoders])
        if left <= 0 or not able:
            return turn
        worth = self.worth(turn.decoding, rows)
        bound = allowance if turn.pieces else None
        plain: list[Part] = []
        drafted: list[Part] = []
        for part in turn.decoders:
            speculator = part.sequence.speculator
            drafts: list[int] = []
            if speculator is not None and left > 0:
                most = min(self._tokens, -(-left // able), _room(part.sequence))
                if bound is not None:
                    most = bound.spare(part.end, most)
                drafts = speculator.draft(part.end, most, worth)
                able -= 1
                left -= len(drafts)
            if drafts:
                tokens = 1 + len(drafts)
                drafted.append(
                    Part(part.sequence, part.start, tokens, part.start + tokens, True, drafts)
                )
            else:
                plain.append(part)
        if not drafted:
            return turn
        return Turn([*plain, *drafted, *turn.readers], len(plain), len(drafted))

    def waits(self, turn: Turn) -> bool:
        """Whether this step should not be launched before what is under way has been read.

        Drafts follow the last tokens. Where they are likely to pay, those have to be known.
        """
        if not self._tokens or turn.readers:
            return False
        worth = self.worth(turn.decoding, turn.decoding)
        won = 0.0
        for part in turn.decoders:
            speculator = part.sequence.speculator
            if speculator is not None:
                chance = speculator.expect(part.end, worth)  # of all: each learns from its guess
                won += chance if _room(part.sequence) > 0 else 0.0
        return won > _WAIT * turn.decoding

    def worth(self, sequences: int, rows: int) -> float:
        """How sure a draft has to be: its row's share of the step, against a token's of all."""
        slope = self._line.slope if self._steps >= _ENOUGH_STEPS else _UNKNOWN_SLOPE
        share = slope / (1 + slope * rows)
        return min(max(sequences * share, _LEAST_WORTH), _MOST_WORTH)

    def observe(self, seconds: float, turn: Turn) -> None:
        """A step has been made."""
        if self._tokens and not turn.readers:
            self._line.add(sum([part.tokens for part in turn.parts]), seconds)
            self._steps += 1


def _room(sequence: Sequence) -> int:
    """Drafts that its blocks hold, and that leave one token to be chosen after them."""
    return min(room_of(sequence) - 1, sequence.limit - sequence.known - 1)
