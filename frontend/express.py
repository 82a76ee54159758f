"""Events that leave at once, from the greenlet that receives their tokens. Runs in front ends.

PERF: a token then costs no switch to the greenlet of its request and back, and all streams of a
step are written one right after the other, so that whoever reads several of them wakes up once.
Only what is plain goes this way; a connection that does not take all of it at once is left to its
own greenlet, which waits for it, so that no client holds up another one's tokens.

Knows neither tokens nor what is in the events. A stream keeps its own bytes, in order: whoever
comes first, the round of the ``Outbox`` or the stream's own greenlet, writes them.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol


class Connection(Protocol):
    """A client's connection."""

    def offer(self, data: bytes) -> int:
        """Send what it takes without waiting; so many bytes. Never raises: 0 if it is broken."""

    def sendall(self, data: bytes) -> None:
        """Send all, waiting for room. Raises OSError."""


def connection_of(environ: Mapping[str, Any]) -> Connection | None:
    """Where the chunks of a streamed answer can be written; None if it is not sent in chunks.

    PERF: looks for ``offer`` alone. To be checked as a protocol cost 30 us, 2 % of a request.
    """
    connection: Connection | None = environ.get("gunicorn.socket")
    in_chunks = environ.get("SERVER_PROTOCOL") == "HTTP/1.1"
    return connection if in_chunks and hasattr(connection, "offer") else None


class Outbox:
    """The streams of this process that have events to be sent."""

    def __init__(self) -> None:
        self._senders: list[Callable[[], None]] = []

    def add(self, send: Callable[[], None]) -> None:
        """Call this in the next round; it must not wait, nor raise."""
        self._senders.append(send)

    def flush(self) -> None:
        """One round: to be called when nothing more is there to be received."""
        if self._senders:
            senders, self._senders = self._senders, []
            for send in senders:
                send()


class Express:
    """One stream's events that were made where its tokens are received."""

    def __init__(self, connection: Connection, outbox: Outbox) -> None:
        self._connection = connection
        self._outbox = outbox
        self._events: list[bytes] = []
        """Not sent yet."""
        self._rest = b""
        """Of a chunk that the client has not taken whole."""
        self.needs_help: Callable[[], None] = lambda: None
        """Called when the stream's own greenlet has to ``settle``."""

    def put(self, events: bytes) -> None:
        """Send this in the next round."""
        if not self._events:
            self._outbox.add(self._send)
        self._events.append(events)

    def settle(self) -> bytes | None:
        """In the stream's own greenlet: wait until the rest is sent; what is still to be sent then.

        None if there was nothing to do. Raises OSError.
        """
        if not self._rest and not self._events:
            return None
        rest, self._rest = self._rest, b""
        if rest:
            self._connection.sendall(rest)
        return self._take()

    def drop(self) -> None:
        """Nobody reads what is left."""
        self._events.clear()
        self._rest = b""

    def _take(self) -> bytes:
        events = b"".join(self._events)
        self._events.clear()
        return events

    def _send(self) -> None:
        # RACE: the stream's own greenlet may have woken since, and sends it all.
        if not self._events or self._rest:
            return
        events = self._events.pop() if len(self._events) == 1 else self._take()
        chunk = b"%X\r\n%b\r\n" % (len(events), events)
        sent = self._connection.offer(chunk)
        if sent < len(chunk):
            self._rest = chunk[sent:]
            self.needs_help()
