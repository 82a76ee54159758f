"""Puts an id before each event of a stream, and leaves out what its client has read before.

Stands between a stream and its surface's dialect. The text of an event is a function of the tokens
before it, whatever they came in: so a stream that is taken up is written anew from its first token,
and begins to be told where the client's last event ended. Errors have no ids. Runs in front ends.
"""

from common.errors import RequestError
from frontend.resume.event_ids import END, Position, Told, render
from frontend.runs import Run, Token
from frontend.sse import Dialect

_BREAK = b"\n\n"


class Numbered:
    """A dialect with ids."""

    def __init__(self, dialect: Dialect, ticket: str, seen: Position) -> None:
        """``seen`` is what the client has read before, nothing of each run for a new stream."""
        self._dialect = dialect
        self._ticket = ticket
        self._seen = seen
        self._runs = [Told() for _ in seen.runs]
        """How far each run has been written, whoever reads it."""
        self._failed = False

    def tokens(self, run: Run, tokens: list[Token]) -> bytes:
        """Token by token: what comes together depends on how fast it came."""
        return b"".join([self._token(run, token) for token in tokens])

    def failure(self, error: RequestError, run: Run | None = None) -> bytes:
        """As it is: nobody can go on behind it."""
        self._failed = True
        return self._dialect.failure(error, run)

    def end(self) -> bytes:
        """The last events count, too."""
        events = self._dialect.end()
        if self._failed:
            return events
        return self._numbered(events, END, self._told())

    def _token(self, run: Run, token: Token) -> bytes:
        index = run.index
        events = self._dialect.tokens(run, [token])
        before, seen = self._runs[index], self._seen.runs[index]
        told = self._told()
        self._runs[index] = Told(before.tokens + 1, bool(token.finish))
        if seen.over or before.tokens < seen.tokens:
            return b""
        return self._numbered(events, index, told)

    def _told(self) -> tuple[Told, ...]:
        """How far the client has read: while one run is written anew, more of the others."""
        return tuple(map(max, self._runs, self._seen.runs))

    def _numbered(self, events: bytes, unit: int, before: tuple[Told, ...]) -> bytes:
        """The events of a token, or of the end, without those that the client has read.

        ``before`` is where the runs stood without them.
        """
        parts = events.split(_BREAK)[:-1]
        skipped = 0
        if self._seen.within == unit:
            skipped, self._seen = self._seen.events, Position(self._seen.runs)
        done = []
        for number, part in enumerate(parts[skipped:], skipped + 1):
            if number == len(parts) and unit != END:
                position = Position(self._told())
            else:
                position = Position(before, unit, number)
            done.append(f"id: {render(self._ticket, position)}\n".encode() + part + _BREAK)
        return b"".join(done)
