"""Chooses the tokens of a step with drafts, each as if those before it had been known.

Runs in the worker, between logits and outcome. A token is chosen from (logits, parameters, seed,
position, counts) by the sampler, as always; a draft is accepted if it is what was chosen, and only
then is the choice after it worth anything. Where an accepted token changes what the next is chosen
from (counts of penalties), or where the host's work for a choice costs more than a wait (green
lists; where the host computes, noise, too), tokens of a sequence are chosen in turn, so that
nothing is counted or drawn that a step without drafts would not have. All others are chosen at
once. Knows nothing of the model or of messages.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from worker.batch import Wanted
from worker.processors import NO_ROW, SamplingRow
from worker.sampler import Chosen, Sampled
from worker.turns import Part


@dataclass(slots=True)
class Round:
    """Tokens that are chosen together; lists of the same length."""

    numbers: list[int]
    """Rows of the step's logits: first one for each part, then those after drafts."""
    rows: list[SamplingRow]
    positions: list[int]
    """Of the tokens among the generated ones."""
    lengths: list[int]
    """Tokens before them."""
    parts: list[Part]
    """Whose they are."""

    def add(self, part: Part, number: int, accepted: int) -> None:
        """The token after so many drafts of this part."""
        sequence = part.sequence
        self.numbers.append(number)
        self.rows.append(sequence.row)
        self.positions.append(sequence.index + accepted)
        self.lengths.append(len(sequence.ids) + accepted)
        self.parts.append(part)

    def last_id(self, place: int) -> int:
        """The token before the one at this place."""
        part = self.parts[place]
        accepted = self.lengths[place] - len(part.sequence.ids)
        return part.drafts[accepted - 1] if accepted else part.sequence.ids[-1]


Choose = Callable[[Round], Sampled]


def first_round(wanted: Wanted, *, draws_cost: bool) -> Round:
    """One token of each part, and of some parts those after their drafts.

    ``draws_cost``: a draw with noise costs more than a wait for the tokens before it.
    """
    sequences = [part.sequence for part in wanted.next_tokens]
    first = Round(
        list(range(len(sequences))),
        [sequence.row for sequence in sequences],
        [sequence.index for sequence in sequences],
        [len(sequence.ids) for sequence in sequences],
        list(wanted.next_tokens),
    )
    if wanted.drafts:
        for line in _lines(wanted):
            if not line.in_turn(draws_cost=draws_cost):
                for accepted in range(1, len(line.part.drafts) + 1):
                    first.add(line.part, line.number(accepted), accepted)
    return first


def verify(wanted: Wanted, first: Round, sampled: Sampled, choose: Choose) -> list[list[Chosen]]:
    """What each part of the first round yields: a token, and one more for each accepted draft.

    ``sampled`` is what was chosen in it; ``choose`` is asked for what else has to be.
    """
    lines = _lines(wanted)
    found = dict(zip(first.numbers, sampled.tokens(), strict=True))
    going = [line for line in lines if line.number(1) not in found]
    accepted = 0
    while going := [line for line in going if line.accepts(found, accepted)]:
        accepted += 1
        then = Round([], [], [], [], [])
        for line in going:
            then.add(line.part, line.number(accepted), accepted)
        found.update(zip(then.numbers, choose(then).tokens(), strict=True))
    tokens = [[found[place]] for place in range(len(wanted.next_tokens))]
    for line in lines:
        tokens[line.place] += line.further(found)
    return tokens


@dataclass(frozen=True, slots=True)
class _Line:
    """One part with drafts."""

    part: Part
    place: int
    """Among the parts: the row of logits that its first token is chosen from."""
    begin: int
    """The row after its first draft; the others follow."""

    def in_turn(self, *, draws_cost: bool) -> bool:
        """Whether a token can, or should, be chosen only when those before it are."""
        row = self.part.sequence.row
        costly = row.parameters.watermark or (draws_cost and row.parameters.do_sample)
        return costly or row.seen != NO_ROW or row.output != NO_ROW

    def number(self, accepted: int) -> int:
        """The row of logits after so many drafts."""
        return self.begin + accepted - 1 if accepted else self.place

    def accepts(self, found: dict[int, Chosen], accepted: int) -> bool:
        """Whether the draft after so many accepted ones is what was chosen in its place."""
        drafts = self.part.drafts
        return accepted < len(drafts) and found[self.number(accepted)][0] == drafts[accepted]

    def further(self, found: dict[int, Chosen]) -> list[Chosen]:
        """The tokens after its accepted drafts. One that is no number is left to the next step."""
        tokens: list[Chosen] = []
        while self.accepts(found, len(tokens)):
            token = found[self.number(len(tokens) + 1)]
            if not math.isfinite(token[1]):
                break
            tokens.append(token)
        return tokens


def _lines(wanted: Wanted) -> list[_Line]:
    lines = []
    number = len(wanted.next_tokens)
    for place, part in enumerate(wanted.next_tokens):
        if part.drafts:
            lines.append(_Line(part, place, number))
            number += len(part.drafts)
    return lines
