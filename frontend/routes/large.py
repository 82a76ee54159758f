"""Answers that are large while a client takes them: how many may wait for slow clients at once.

Runs in front ends. What is limited is memory: the tokens of a text of 2 MB take some 30 MB until
the last of them has been read. One object per process.
"""

from collections.abc import Callable, Iterator

from gevent.lock import BoundedSemaphore

from common.errors import ErrorKind, RequestError

MOST = 8
"""Large answers of a process at the same time."""
SEAT_LIMIT_S = 15.0
"""So long a request waits until another one has been read."""
READ_LIMIT_S = 60.0
"""A client that takes longer is cut off: others wait for its place."""
LARGE_CHARACTERS = 100_000
"""Of a text whose answer is large."""


class Seat:
    """The right to one large answer; ``leave`` gives it back, once."""

    def __init__(self, free: Callable[[], object]) -> None:
        self._free = free
        self._taken = True

    def leave(self) -> None:
        """Harmless if it was done before."""
        if self._taken:
            self._taken = False
            self._free()


class LargeAnswers:
    """Gives out the seats."""

    def __init__(self, clock: Callable[[], float], most: int = MOST) -> None:
        self._clock = clock
        self._seats = BoundedSemaphore(most)

    def seat(self, characters: int, limit_s: float = SEAT_LIMIT_S) -> Seat | None:
        """A seat for the answer to a text; None if it is small.

        Raises RequestError (OVERLOADED).
        """
        if characters <= LARGE_CHARACTERS:
            return None
        if not self._seats.acquire(timeout=limit_s):
            raise RequestError(
                ErrorKind.OVERLOADED, "Too many large answers are being read", retry_after_s=5.0
            )
        return Seat(self._seats.release)

    def stream(self, pieces: Iterator[bytes], seat: Seat | None) -> "Pieces":
        """The body of an answer that gives its seat back when it has been read."""
        return Pieces(pieces, seat, self._clock)


class Pieces:
    """A body in pieces. Ends with an exception, and so the connection, if it is read too slowly."""

    def __init__(
        self, pieces: Iterator[bytes], seat: Seat | None, clock: Callable[[], float]
    ) -> None:
        self._pieces = pieces
        self._seat = seat
        self._clock = clock
        self._ends_s = clock() + READ_LIMIT_S

    def __iter__(self) -> "Pieces":
        return self

    def __next__(self) -> bytes:
        if self._clock() > self._ends_s:
            raise TimeoutError("the client reads too slowly")
        return next(self._pieces)

    def close(self) -> None:
        """Called by the server in every case."""
        if self._seat is not None:
            self._seat.leave()
