"""Kills a scheduler that hangs. supervisord starts another one, to which everybody turns.

Runs in supervisord's listener, which hears when the scheduler starts and ends, and ticks. Workers
that hang are the scheduler's to judge; but who judges the scheduler? Knows nothing of messages.
"""

import logging
import os
import signal
import time
from collections.abc import Callable

PROGRAM = "scheduler"
TICK = "TICK_5"
MOST_S = 6.0
"""Of silence, a tick counts for no more.

RACE: all of the server may have been halted, and the scheduler be awake later than we are."""
LEAST_HANG_S = 7.0
"""So it takes two ticks at least."""

_LOGGER = logging.getLogger("launcher.listener")


class Watchdog:
    """Looks at every tick whether the scheduler has given a sign of life since the last one."""

    def __init__(
        self,
        last_beat: Callable[[], int | None],
        hang_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``last_beat`` changes with every sign of life; ``hang_s`` is ``--hang-timeout``."""
        self._last_beat = last_beat
        self._hang_s = max(hang_s, LEAST_HANG_S)
        self._clock = clock
        self._descriptor: int | None = None
        """Of the scheduler's process: a pid alone may belong to somebody else by the time."""
        self._beat: int | None = None
        self._silence_s = 0.0
        self._looked_s = 0.0

    def begin(self, pid: int) -> None:
        """Watch a scheduler that runs already: an earlier listener has heard of its start."""
        self._hold(pid)

    def see(self, event: str, fields: dict[str, str]) -> None:
        """One of supervisord's events."""
        if event == TICK:
            self._look()
        elif fields.get("processname") == PROGRAM:
            self._let_go()
            if event == "PROCESS_STATE_RUNNING":
                self._hold(int(fields["pid"]))

    def _hold(self, pid: int) -> None:
        try:
            self._descriptor = os.pidfd_open(pid)
        except OSError as error:
            _LOGGER.warning("the scheduler cannot be watched: %s", error.strerror)
        self._silence_s, self._looked_s = 0.0, self._clock()

    def _let_go(self) -> None:
        """It ends, or is being stopped, which has a limit of its own."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _look(self) -> None:
        now, beat = self._clock(), self._last_beat()
        self._silence_s += min(now - self._looked_s, MOST_S)
        self._looked_s = now
        if beat != self._beat:
            self._beat, self._silence_s = beat, 0.0
        if self._descriptor is None or beat is None or self._silence_s < self._hang_s:
            return
        _LOGGER.error("the scheduler hangs, silent for %.0f s: it is killed", self._silence_s)
        self._silence_s = 0.0
        try:
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
        except OSError as error:
            _LOGGER.warning("the scheduler could not be killed: %s", error.strerror)
