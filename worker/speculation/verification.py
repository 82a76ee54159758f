"""Which tokens of a step are chosen, each as if the drafts before it had been known; which count.

Runs in the worker, between logits and outcome. A token is chosen from (logits, parameters, seed,
position, counts) by the sampler, as always; a draft is accepted if it is what was chosen in its
place, and only then is the choice after it worth anything. Knows nothing of the model, of how
tokens are chosen, or of messages.
"""

import math
from typing import NamedTuple

from worker.batch import Wanted
from worker.sampler import Chosen
from worker.turns import Part


class Place(NamedTuple):
    """A token that is to be chosen: of this part, after so many of its drafts."""

    part: Part
    drafts: int

    @property
    def last_id(self) -> int:
        """The token before it."""
        part, drafts = self
        return part.drafts[drafts - 1] if drafts else part.sequence.ids[-1]


def places_of(wanted: Wanted) -> list[Place]:
    """In the order of the rows of logits: one for each part, then those after drafts."""
    places = [Place(part, 0) for part in wanted.next_tokens]
    if wanted.drafts:
        for part in wanted.next_tokens:
            places += [Place(part, drafts) for drafts in range(1, len(part.drafts) + 1)]
    return places


def verify(wanted: Wanted, chosen: list[Chosen]) -> list[list[Chosen]]:
    """What each part yields, by what was chosen in all places: a token, and one more for each
    accepted draft. One of these that is no number is left to the next step.
    """
    after = len(wanted.next_tokens)
    yielded = []
    for part, token in zip(wanted.next_tokens, chosen, strict=False):
        tokens = [token]
        for draft, further in zip(part.drafts, chosen[after:], strict=False):
            if tokens[-1][0] != draft or not math.isfinite(further[1]):
                break
            tokens.append(further)
        after += len(part.drafts)
        yielded.append(tokens)
    return yielded
