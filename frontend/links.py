"""What a request needs of the link to the scheduler, which ``link.py`` is; tests have their own.

Runs in front ends.
"""

from collections.abc import Callable
from typing import Literal, Protocol

from common.messages import (
    Delivered,
    Keep,
    ReplicaStatus,
    Resumed,
    SequenceSpec,
    SequenceTokens,
    Status,
)
from frontend.mailbox import Brim, Mailbox

CancelReason = Literal["stop_sequence", "client_gone", "sibling_failed", "deadline"]
LEAST_S = 0.001
"""What is left of a deadline that has passed: 0 would be none."""


class Links(Protocol):
    """What a request needs of the link; tests put their own in its place."""

    def next_id(self) -> int:
        """A sequence id that was never used before."""

    def submit(
        self,
        spec: SequenceSpec,
        wake: Callable[[], None],
        *,
        eager: bool = True,
        timeout_s: float = 0.0,
        priority: int = 0,
        age_s: float = 0.0,
        keep: Keep | None = None,
        past: SequenceTokens | None = None,
        brim: Brim | None = None,
    ) -> Mailbox:
        """Hand a sequence in. Raises RequestError if the scheduler is not there.

        ``age_s`` is how old its request is. ``past`` are tokens that it has already; they do not
        come again. ``brim`` bounds what waits to be taken.
        """

    def resume(self, ticket: str, owner: str, timeout_s: float) -> Resumed | None:
        """A kept stream, without runs if there is none; None if no answer came in time."""

    def release(
        self, mailbox: Mailbox, delivered: Delivered, cancel: CancelReason | None = None
    ) -> None:
        """Let a sequence go, for good; ``cancel`` if it is not over."""

    def tally(self, *, requests: int = 0, failure: str | None = None) -> None:
        """Count what only a front end sees."""

    def scrape(self, timeout_s: float) -> bytes | None:
        """The metrics; None if they did not come in time."""

    def replica(self) -> ReplicaStatus | None:
        """One that is ready, if there is any."""

    def unhealthy(self) -> str:
        """Why no request can be served at the moment; empty if they can."""

    def status(self) -> Status | None:
        """The scheduler's latest heartbeat; None if it is silent."""

    def live_sequences(self) -> int | None:
        """How many wait or run in the whole server, at most about a second ago; None: unknown."""
