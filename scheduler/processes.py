"""The processes of workers, held by descriptors, so that a hung one can be killed and no other.

A pid alone may belong to somebody else by the time it is used. Linux only, and only for workers of
this machine: elsewhere nothing is held, and nothing killed.
"""

import logging
import os
import signal
from typing import Protocol

_log = logging.getLogger(__name__)


class Processes(Protocol):
    """What the scheduler asks of the system."""

    def hold(self, pid: int) -> None:
        """Remember a process that has just said who it is."""
        ...

    def kill(self, pid: int) -> None:
        """End a process that is held, at once, even if it is stopped; its parent replaces it."""
        ...

    def forget(self, pid: int) -> None:
        """Hold it no longer; unknown ones are fine."""
        ...


class LocalProcesses:
    """Processes of this machine."""

    def __init__(self) -> None:
        self._held: dict[int, int] = {}

    def hold(self, pid: int) -> None:
        """Remember a process; one that cannot be held cannot be killed either."""
        self.forget(pid)
        try:
            self._held[pid] = os.pidfd_open(pid)
        except OSError as error:
            _log.warning("worker process %d cannot be held: %s", pid, error.strerror)

    def kill(self, pid: int) -> None:
        """SIGKILL to a process that is held; one that has ended is fine."""
        descriptor = self._held.get(pid)
        if descriptor is None:
            return
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except OSError as error:
            _log.warning("worker process %d could not be killed: %s", pid, error.strerror)

    def forget(self, pid: int) -> None:
        """Close its descriptor."""
        descriptor = self._held.pop(pid, None)
        if descriptor is not None:
            os.close(descriptor)
