"""What arrives on a ZeroMQ socket, for the one greenlet that reads it.

Runs in front ends. Knows nothing of what the frames mean. The socket is a plain one.

PERF: the sockets of ``zmq.green`` look at the socket's state after every call and at every turn of
gevent's loop while the descriptor is readable: an eighth of all that a front end did per token.
"""

from typing import Any

import zmq
from gevent import get_hub
from gevent.event import Event

_READ = 1


class Inbox:
    """Waits without blocking other greenlets."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._watcher = get_hub().loop.io(socket.getsockopt(zmq.FD), _READ)
        self._ready = Event()
        self._waiting = False

    def receive(self) -> list[bytes]:
        """The next message's frames; for one greenlet only."""
        while True:
            try:
                frames: list[bytes] = self._socket.recv_multipart(zmq.NOBLOCK)
                return frames
            except zmq.Again:
                self._wait()

    def look(self) -> None:
        """To be called after every other use of the socket: a send, a connect.

        RACE: libzmq tells of an arrival once, by its descriptor, and that use may have taken it.
        """
        if self._waiting and self._socket.getsockopt(zmq.EVENTS) & zmq.POLLIN:
            self._ready.set()

    def _wait(self) -> None:
        self._ready.clear()
        self._waiting = True
        self._watcher.start(self._ready.set)
        try:
            self._ready.wait()
        finally:
            self._waiting = False
            self._watcher.stop()
