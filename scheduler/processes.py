"""Processes held by descriptors: hung workers are killed, deaths of all are known at once.

A pid alone may belong to somebody else by the time it is used. Linux only, and only for processes
of this machine: elsewhere nothing is held or killed, and a death is found out by other means.
"""

import contextlib
import logging
import os
import select
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

    def ended(self) -> list[int]:
        """Those held that have ended since the last call; they stay held."""
        ...


class LocalProcesses:
    """Processes of this machine."""

    def __init__(self) -> None:
        self._held: dict[int, int] = {}
        self._ends = select.epoll()

    @property
    def fd(self) -> int:
        """Readable when a process that is held has ended."""
        return self._ends.fileno()

    def hold(self, pid: int) -> None:
        """Remember a process; one that cannot be held cannot be killed either."""
        self.forget(pid)
        try:
            self._held[pid] = os.pidfd_open(pid)
        except OSError as error:
            _log.warning("process %d cannot be held: %s", pid, error.strerror)
        else:
            # Told once: a loop that waits for this must not wake for the same death for ever.
            self._ends.register(self._held[pid], select.EPOLLIN | select.EPOLLONESHOT)

    def kill(self, pid: int) -> None:
        """SIGKILL to a process that is held; one that has ended is fine."""
        descriptor = self._held.get(pid)
        if descriptor is None:
            return
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except OSError as error:
            _log.warning("process %d could not be killed: %s", pid, error.strerror)

    def stop(self) -> None:
        """SIGINT to all that are held: they end by themselves."""
        for descriptor in self._held.values():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGINT)

    def forget(self, pid: int) -> None:
        """Close its descriptor, which ends the watch over it, too."""
        descriptor = self._held.pop(pid, None)
        if descriptor is not None:
            os.close(descriptor)

    def ended(self) -> list[int]:
        """Those whose descriptors have become readable."""
        found = {descriptor for descriptor, _ in self._ends.poll(0)}
        return [pid for pid, descriptor in self._held.items() if descriptor in found]

    def close(self) -> None:
        """Hold nobody any more."""
        for pid in list(self._held):
            self.forget(pid)
        self._ends.close()
