"""What arrives on a ZeroMQ socket, for the one greenlet that reads it.

Runs in front ends. Knows nothing of what the frames mean. The socket is a plain one.

PERF: the sockets of ``zmq.green`` look at the socket's state after every call and at every turn of
gevent's loop while the descriptor is readable: an eighth of all that a front end did per token.
Nor does a wait here begin and end to watch the descriptor: that was 17 of the 430 us that a step
of eight streams took.
"""

from collections.abc import Callable
from typing import Any

import zmq
from gevent import get_hub, getcurrent

_READ = 1


class Inbox:
    """Waits without blocking other greenlets. ``close`` it before its socket."""

    def __init__(self, socket: Any, idle: Callable[[], None] = lambda: None) -> None:
        """``idle`` is called when nothing is left to be received, before each wait."""
        self._socket = socket
        self._idle = idle
        self._hub = get_hub()
        self._waiting: Any = None
        """The greenlet that waits, until it is woken."""
        self._watcher = self._hub.loop.io(socket.getsockopt(zmq.FD), _READ)

    def receive(self) -> list[bytes]:
        """The next message's frames; for one greenlet only."""
        while not self._has_some():
            self._idle()
            self._wait()
        frames: list[bytes] = self._socket.recv_multipart(zmq.NOBLOCK)
        return frames

    def look(self) -> None:
        """To be called after every other use of the socket: a send, a connect.

        RACE: libzmq tells of an arrival once, by its descriptor, and that use may have taken it.
        """
        if self._waiting is not None and self._has_some():
            self._hub.loop.run_callback(self._wake)

    def close(self) -> None:
        """Watch no longer."""
        self._watcher.stop()
        self._watcher.close()

    def _has_some(self) -> bool:
        """PERF: to ask costs 1.6 us, to be told by an exception that there is nothing 6."""
        return bool(self._socket.getsockopt(zmq.EVENTS) & zmq.POLLIN)

    def _wait(self) -> None:
        # The descriptor is readable until it is looked at, so it is watched as long as somebody
        # waits whenever it is.
        if not self._watcher.active:
            self._watcher.start(self._wake)
        self._waiting = getcurrent()
        try:
            self._hub.switch()
        finally:
            self._waiting = None

    def _wake(self) -> None:
        """In the hub. RACE: the descriptor and ``look`` may both wake; the later finds nobody."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            self._watcher.stop()
        else:
            waiting.switch()
