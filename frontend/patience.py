"""Wakes a stream that has been silent for too long; runs in front ends, one object per request.

Knows nothing of what is waited for.

PERF: a ``gevent.Timeout`` for every wait costs 3 us a token. Here one timer serves all waits of a
stream: nothing but a time is noted for each, and a timer that goes off too early is set again.
"""

from collections.abc import Callable
from typing import Any

from gevent import get_hub


class Patience:
    """How long the current wait may last. Used by one greenlet; ``end`` lets the timer go."""

    __slots__ = ("_due_s", "_loop", "_ring", "_timer", "over")

    def __init__(self, ring: Callable[[], None]) -> None:
        """``ring`` is called, from the hub, when a wait has lasted too long."""
        self._ring = ring
        self._loop = get_hub().loop
        self._timer: Any = None
        self._due_s = 0.0
        self.over = False
        """Whether the current wait has lasted too long."""

    def begin(self, seconds: float) -> None:
        """A wait begins."""
        self.over = False
        self._due_s = self._loop.now() + seconds
        if self._timer is None:
            self._set(seconds)

    def end(self) -> None:
        """No more waits."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.stop()
            timer.close()

    def _set(self, seconds: float) -> None:
        self._timer = self._loop.timer(seconds)
        self._timer.start(self._went_off)

    def _went_off(self) -> None:
        self.end()
        left = self._due_s - self._loop.now()
        if left > 0:
            self._set(left)
        else:
            self.over = True
            self._ring()
