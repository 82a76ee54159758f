"""How long a connection may wait for the head of its next request, and how that ends at a stop.

Runs in the greenlet that serves the connection. Knows gevent's timeouts; nothing of HTTP, but that
its heads do not begin as TLS does.
"""

from dataclasses import dataclass
from types import TracebackType
from typing import Any

import gevent
from gevent import getcurrent
from gevent.socket import MSG_PEEK, wait_read

HEAD_LIMIT_S = 20.0
"""From the first byte of a request's line and headers to the last, even if they never pause."""
KEPT_S = 0.5
"""So long after a stop a connection that was kept for its next request stays open: a client that
asks all the time is about to write it, and would find the connection closed with nothing answered.
"""
ARRIVING_S = 2.0
"""So long after a stop a request may still come in that was on its way by then: the rest of a head,
or the first one of a connection that was made before."""

_TLS_HANDSHAKE = b"\x16"
"""The first byte of whoever has typed https:// (RFC 8446, 5.1)."""


class TlsError(Exception):
    """The client speaks TLS. It waits for an answer, so no end of a head would ever come."""


@dataclass
class Connection:
    """A client's connection, between two of its requests."""

    socket: Any
    is_pipelined: bool = False
    """Whether bytes of the next request have been read already."""
    is_new: bool = True
    """Whether no request has come on it yet."""


class HeadWait:
    """A ``with`` block that ends silently when the head of a request takes too long.

    There is a limit to the silence before it, and one to the head itself: a client that sends it
    byte by byte is not idle, but may not hold on to its connection for that. Entering it raises
    TlsError.
    """

    def __init__(
        self,
        waits: "dict[Any, HeadWait]",
        connection: Connection,
        silence_s: float,
        head_s: float = HEAD_LIMIT_S,
    ) -> None:
        """``waits`` has all of them by their greenlets, while they last."""
        self._waits = waits
        self._connection = connection
        self._silence = gevent.Timeout(silence_s, False)
        self._head = gevent.Timeout(head_s, False)
        self._current = self._silence
        self._greenlet: Any = None

    @property
    def is_arriving(self) -> bool:
        """Whether a request may be on its way: more so than on any idle connection."""
        return self._connection.is_new or self._current is self._head

    def end(self, *, arriving: bool) -> None:
        """Wait no longer; without ``arriving`` only if nothing is. To be called in the hub.

        RACE: the greenlet may have got its request by now.
        """
        if self._waits.get(self._greenlet) is self and (arriving or not self.is_arriving):
            self._greenlet.throw(self._current)

    def __enter__(self) -> None:
        self._greenlet = getcurrent()
        self._waits[self._greenlet] = self
        try:
            begun = self._connection.is_pipelined or self._begins()
        except BaseException:
            self._waits.pop(self._greenlet, None)
            raise
        if not begun:
            # Only the block itself can be ended silently: it is, once it waits for the first byte.
            self._head = gevent.Timeout(0, False)
        self._current = self._head
        self._head.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self._waits.pop(self._greenlet, None)
        self._head.close()
        return error is self._head

    def _begins(self) -> bool:
        """Wait for the first byte; False if it does not come in time."""
        self._silence.start()
        try:
            wait_read(self._connection.socket.fileno())
        except gevent.Timeout as timeout:
            if timeout is not self._silence:
                raise
            return False
        finally:
            self._silence.close()
        if self._connection.is_new and self._connection.socket.recv(1, MSG_PEEK) == _TLS_HANDSHAKE:
            raise TlsError
        return True
