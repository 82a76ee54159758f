"""Wakes the one greenlet that answers a request; runs in front ends, one object per request.

Knows nothing of what is waited for.

PERF: once per token. ``gevent.event.Event`` may have many waiters and makes a new timer for every
wait with a timeout, which together cost 5 us more. Here one timer serves all waits of a request: a
wait only notes when it would be over, and a timer that goes off too early is set again. By a clock
that nobody sets: the loop's is the machine's, and a wait would last as long as that is set back.
"""

import math
import time
from collections.abc import Callable
from typing import Any

from gevent import get_hub
from gevent.hub import Waiter


class Bell:
    """May be rung by any greenlet of the process; waited for by one. ``close`` ends the timer."""

    __slots__ = ("_clock", "_due_s", "_hub", "_rung", "_timer", "_timer_due_s", "_waiter")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._hub = get_hub()
        self._rung = False
        self._waiter: Any = None
        self._due_s = math.inf
        self._timer: Any = None
        self._timer_due_s = math.inf

    def ring(self) -> None:
        """Wake who waits; who waits next does not need to."""
        self._rung = True
        self._wake()

    def clear(self) -> None:
        """From now on a wait waits."""
        self._rung = False

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody waits and has not been woken."""
        return self._waiter is not None

    def postpone(self, timeout_s: float) -> None:
        """Let the wait that is on end so long from now, not sooner than it would have."""
        self._due_s = self._clock() + timeout_s

    def wait(self, timeout_s: float | None = None) -> bool:
        """Return when it has been rung, or False after the timeout."""
        if self._rung:
            return True
        if timeout_s is not None:
            self._due_s = self._clock() + timeout_s
            if self._due_s < self._timer_due_s:
                self._set_timer(timeout_s)
        waiter = self._waiter = Waiter(self._hub)
        try:
            waiter.get()
        finally:
            self._waiter = None
            self._due_s = math.inf
        return self._rung

    def close(self) -> None:
        """Let the timer go."""
        timer, self._timer, self._timer_due_s = self._timer, None, math.inf
        if timer is not None:
            timer.stop()
            timer.close()

    def _wake(self) -> None:
        # RACE: the greenlet may leave its wait by an exception before this callback runs. Every
        # wait has a waiter of its own, so a late call finds nobody.
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            self._hub.loop.run_callback(waiter.switch, None)

    def _set_timer(self, seconds: float) -> None:
        self.close()
        self._timer_due_s = self._due_s
        self._timer = self._hub.loop.timer(seconds)
        self._timer.start(self._went_off)

    def _went_off(self) -> None:
        self.close()
        left = self._due_s - self._clock()
        if left == math.inf:
            return
        if left > 0:
            self._set_timer(left)
        else:
            self._wake()
