"""New sequences that found every seat taken, and wait a moment for one before they are refused.

RACE: a client that has its end may ask again by another front end, whose Submit overtakes the first
one's Delivered: it would be refused though the seat is its own.
Owns who waits and until when. Decides nothing, knows no seats.
"""

import math

from common.messages import Submit

PATIENCE_S = 0.05
"""Far longer than a message takes, far shorter than anybody notices who is refused after all."""


class Standby:
    """Those that wait, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[float, int, Submit]] = {}
        """By sequence: until when it waits, its front end, and what was said."""

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, frontend: int, submit: Submit, now: float) -> None:
        """Have it wait from now on; one that does already goes on as it did."""
        self._waiting.setdefault(submit.spec.id, (now + PATIENCE_S, frontend, submit))

    def drop(self, sequence: int) -> None:
        """Nobody wants it any more."""
        self._waiting.pop(sequence, None)

    def drop_frontend(self, frontend: int) -> None:
        """The same for all of a front end."""
        for sequence in [s for s, waiting in self._waiting.items() if waiting[1] == frontend]:
            del self._waiting[sequence]

    def take(self) -> tuple[int, Submit]:
        """The first one and its front end; it waits no longer."""
        _, frontend, submit = self._waiting.pop(next(iter(self._waiting)))
        return frontend, submit

    def next_s(self) -> float:
        """When the first one has waited long enough."""
        first = next(iter(self._waiting.values()), None)
        return math.inf if first is None else first[0]
