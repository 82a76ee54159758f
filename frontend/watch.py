"""Notices clients that leave, in every state and without writing to them.

One epoll set per process holds the sockets of all requests that are being served; the kernel says
when a peer has closed its side (EPOLLRDHUP), whether or not it has sent more bytes before that.
One greenlet waits on the set. A client that only shuts down its sending side counts as gone.
"""

import logging
import select
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gevent
from gevent import monkey
from gevent.socket import wait_read

from frontend.faults import describe

_GONE = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR

_log = logging.getLogger(__name__)


class Watcher:
    """Calls back when a watched socket's peer has gone."""

    def __init__(self) -> None:
        # gevent takes epoll out of the select module; its blocking poll is not used here.
        self._epoll = monkey.get_original("select", "epoll")()
        self._callbacks: dict[int, dict[int, Callable[[], None]]] = {}
        """By descriptor, and by the number of the watch."""
        self._descriptors: dict[int, int] = {}
        """By the number of the watch."""
        self._count = 0
        self._greenlet: gevent.Greenlet | None = None

    def add(self, socket: Any, callback: Callable[[], None]) -> int:
        """Watch a socket until ``remove``; the returned number names the watch.

        A socket may be watched several times, as one request may be many.
        """
        if self._greenlet is None:
            self._greenlet = gevent.spawn(self._run)
        descriptor: int = socket.fileno()
        if descriptor < 0:
            callback()
            return descriptor
        with suppress(FileExistsError):
            self._epoll.register(descriptor, _GONE | select.EPOLLONESHOT)
        self._count += 1
        self._callbacks.setdefault(descriptor, {})[self._count] = callback
        self._descriptors[self._count] = descriptor
        return self._count

    def remove(self, watch: int) -> None:
        """Stop watching; has to be called before the socket is closed."""
        descriptor = self._descriptors.pop(watch, None)
        if descriptor is None:
            return
        del self._callbacks[descriptor][watch]
        if not self._callbacks[descriptor]:
            self._forget(descriptor)

    def close(self) -> None:
        """End the greenlet and give the descriptor back."""
        if self._greenlet is not None:
            self._greenlet.kill()
        self._epoll.close()

    def _run(self) -> None:
        while True:
            wait_read(self._epoll.fileno())
            for descriptor, _ in self._epoll.poll(0):
                callbacks = self._forget(descriptor)
                for watch in callbacks:
                    del self._descriptors[watch]
                for callback in callbacks.values():
                    _call(callback)

    def _forget(self, descriptor: int) -> dict[int, Callable[[], None]]:
        """What was to be called about a socket, which is watched no longer."""
        with suppress(OSError):
            self._epoll.unregister(descriptor)
        return self._callbacks.pop(descriptor, {})


def _call(callback: Callable[[], None]) -> None:
    """One request's mistake must not end the greenlet that all departures are noticed by."""
    try:
        callback()
    except Exception as error:
        _log.error("a departure could not be handled: %s", describe(error))
