"""One sequence's drafts, and how they have fared: how many are worth a row of the next step.

Runs in the worker. A row of a step costs something, and only an accepted draft gives something, so
each sequence keeps an estimate of the share of its drafts that are right. Knows nothing of
tensors, of steps, or of what a row costs: whoever asks says how sure a draft has to be.
"""

import math

from worker.speculation.drafter import Drafter

_KEPT = 0.8
"""Weight of what was known against a new draft's outcome: about the latest five count."""
_FIRST_HITS, _FIRST_TRIALS = 1.0, 2.0
_REST_TOKENS = 32
"""Where drafts do not pay, one is tried after so many tokens: below 1 % of the time in any case."""
_SURE = 0.999


class Speculator:
    """Of one sequence."""

    __slots__ = ("_drafter", "_guess", "_hits", "_probing", "_rests_until", "_trials")

    def __init__(self, drafter: Drafter) -> None:
        self._drafter = drafter
        self._hits, self._trials = _FIRST_HITS, _FIRST_TRIALS
        self._rests_until = 0
        """No drafts before so many tokens are known."""
        self._probing = False
        self._guess: list[int] = []

    @property
    def chance(self) -> float:
        """The probability that a draft is right if all before it are, as far as is known."""
        return self._hits / self._trials

    def draft(self, known: int, most: int, worth: float) -> list[int]:
        """At most so many drafts after ``known`` tokens; as many as pay, maybe none.

        One pays if it is accepted with the probability ``worth``, which is above 0 and below 1.
        """
        if known < self._rests_until or most < 1:
            return []
        chance = self.chance
        self._probing = chance < worth
        if self._probing:
            most = 1
        elif chance < _SURE:
            most = min(most, int(math.log(worth) / math.log(chance)))
        return self._drafter.propose(most)

    def expect(self, known: int, worth: float) -> float:
        """The chance of a first draft, once the token that is under way is known; 0: there is none.

        As far as its guess of that token tells: it costs nothing, and ``see`` says what it was.
        ``known`` counts it.
        """
        self._guess = self._drafter.propose(1)
        if not self._guess or known < self._rests_until or self.chance < worth:
            return 0.0
        return self.chance

    def see(self, token: int) -> None:
        """The next token, which was chosen without drafts."""
        if self._guess:
            right = self._guess[0] == token
            self._count(int(right), int(not right))
            self._guess = []

    def learn(self, drafted: int, accepted: int, known: int) -> None:
        """What became of the latest drafts; now so many tokens are known."""
        rejected = accepted < drafted  # of those after it nothing is known
        self._guess = []
        self._count(accepted, int(rejected))
        if self._probing and rejected:
            self._rests_until = known + _REST_TOKENS

    def _count(self, right: int, wrong: int) -> None:
        self._hits = _KEPT * self._hits + right
        self._trials = _KEPT * self._trials + right + wrong
